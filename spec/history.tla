------------------------------ MODULE history ------------------------------
(***************************************************************************)
(* Whether payments that really happened are behaviours of the model. Each *)
(* history is the states that confirm stored for one payment, in order,    *)
(* and what account and partner_bank then knew of it. The model is run so  *)
(* that it can store only what comes next in the history; a history is     *)
(* accepted when the model reaches its end with the same facts everywhere. *)
(* payflow_dev/spec/histories.py writes the module that gives Histories.   *)
(***************************************************************************)
EXTENDS payment

CONSTANT Histories

VARIABLES which, at    \* the history that is followed, and how many of its states are stored

\* The states that the step from here to there has stored for p.
Saved(p) ==
    IF row'[p].st = row[p].st THEN <<>>
    ELSE IF row[p].st = "NONE" THEN <<row'[p].st>>
    ELSE LET c == CHOOSE c \in Workers : /\ worker[c].pc \in {"save", "save, stop"}
                                         /\ worker[c].p = p
                                         /\ worker[c].tok = row[p].tok
         IN  Tail(worker[c].path)

\* What can still become the history's facts: none of these ever goes back. Only makes the search quicker.
HoldRank(hold) == CASE hold = "none" -> 0 [] hold = "open" -> 1 [] OTHER -> 2
HoldOf(a) == IF IsOpen(a) THEN "open" ELSE a.hold
CanStillBecome(a, b, r, h) ==
    /\ a.effects <= h.effects
    /\ a.noBook => h.noBook
    /\ a.noHold => h.noHold
    /\ HoldOf(a) = h.hold \/ HoldRank(HoldOf(a)) < HoldRank(h.hold)
    /\ b.inst = h.inst \/ b.inst = "none" \/ (b.inst = "unknown" /\ h.inst # "none")
    /\ r.tok <= h.tok

Follows(p) ==
    LET saved == Saved(p)
        h == Histories[which]
    IN  /\ row'[p].st # "WITHDRAWN"
        /\ at' = at + Len(saved)
        /\ at' <= Len(h.states)
        /\ \A i \in 1..Len(saved) : h.states[at + i] = saved[i]
        /\ CanStillBecome(acc'[p], bank'[p], row'[p], h)

\* The first state after RECEIVED tells what risk had found.
FitsGate(p, h) ==
    Len(h.states) >= 2 =>
        CASE h.states[2] = "APPROVED" -> gate[p] = "approve"
          [] h.states[2] = "AWAITING_OTP" -> gate[p] = "otp"
          [] h.states[2] = "UNDER_REVIEW" -> gate[p] \in {"review", "review, otp"}
          [] OTHER -> TRUE

HistoryInit ==
    /\ Init
    /\ which \in DOMAIN Histories
    /\ at = 0
    /\ \A p \in Payments : later[p] = Histories[which].later /\ FitsGate(p, Histories[which])
HistoryNext == Next /\ which' = which /\ \A p \in Payments : Follows(p)
HistorySpec == HistoryInit /\ [][HistoryNext]_<<vars, which, at>>

IsAtItsEnd ==
    \A p \in Payments :
        LET h == Histories[which] IN
        /\ at = Len(h.states)
        /\ acc[p].effects = h.effects
        /\ HoldOf(acc[p]) = h.hold
        /\ acc[p].noBook = h.noBook
        /\ acc[p].noHold = h.noHold
        /\ bank[p].inst = h.inst
        /\ h.tok >= MaxToken \/ row[p].tok = h.tok

ASSUME \A i \in DOMAIN Histories : TLCSet(i, FALSE)

\* An accepted history is printed, and not followed any further.
Unaccepted ==
    IF IsAtItsEnd /\ TLCGet(which) = FALSE
    THEN PrintT(<<"accepted", which>>) /\ TLCSet(which, TRUE) /\ FALSE
    ELSE TLCGet(which) = FALSE
=============================================================================
