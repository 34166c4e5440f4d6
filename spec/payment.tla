------------------------------ MODULE payment ------------------------------
(***************************************************************************)
(* A payment's way through confirm, account and partner_bank, with every   *)
(* fault that they are built to survive: processes that stop, crash and    *)
(* come back late, leases that end at any moment, messages that are lost,  *)
(* doubled or late, answers that never come, another bank that is silent,  *)
(* customers who cancel, deadlines that pass.                              *)
(*                                                                         *)
(* docs/model-checking.md explains this file to readers who do not know    *)
(* TLA+. Names in brackets are the functions that a line stands for.       *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
    Workers,      \* runs of confirm that can be under way at once; each is about one payment
    Payments,     \* payments on one debtor account
    OnUs,         \* those of them whose creditor's account is in our ledger
    Balance,      \* what the debtor's account has; every payment is about 1
    Gates,        \* what risk may find: "approve", "otp", "review", "review, otp"
    CanSchedule,  \* whether payments may be put off to a later day
    CanBeRefused, \* whether account may refuse for other reasons: blocked, closed, the money is needed elsewhere
    MaxToken,     \* no take-over raises a fencing token above this
    AnyNumber,    \* a word, for the next line
    Faults,       \* how many faults may happen; or AnyNumber, at any moment
    Flaw          \* "none", or the mistake that is planted

Flaws == { "account_ignores_tokens", "confirm_ignores_tokens", "takeover_keeps_token", "key_after_effect",
           "release_on_timeout", "release_leaves_no_refusal", "answer_before_write", "submit_before_intent",
           "resend_under_new_id", "hold_repeat_keeps_token", "withdraw_what_was_sent", "submitted_hold_expires",
           "approval_not_stored", "ended_is_tried_again", "overtaken_still_submits", "transfer_leaves_hold",
           "booked_while_scheduled" }

ASSUME Flaw \in Flaws \cup {"none"} /\ OnUs \subseteq Payments

(***************************************************************************)
(* The transition table: MACHINE in confirm/domain/, held equal to it by  *)
(* a test that reads the pairs between the two marks.                      *)
(***************************************************************************)
\* table begins
Moves == {
    <<"RECEIVED", "UNDER_REVIEW">>,
    <<"RECEIVED", "AWAITING_OTP">>,
    <<"RECEIVED", "APPROVED">>,
    <<"RECEIVED", "REJECTED">>,
    <<"UNDER_REVIEW", "AWAITING_OTP">>,
    <<"UNDER_REVIEW", "APPROVED">>,
    <<"UNDER_REVIEW", "REJECTED">>,
    <<"UNDER_REVIEW", "CANCELLED">>,
    <<"UNDER_REVIEW", "EXPIRED">>,
    <<"AWAITING_OTP", "APPROVED">>,
    <<"AWAITING_OTP", "REJECTED">>,
    <<"AWAITING_OTP", "CANCELLED">>,
    <<"AWAITING_OTP", "EXPIRED">>,
    <<"APPROVED", "COMPLETED">>,
    <<"APPROVED", "HELD">>,
    <<"APPROVED", "REJECTED">>,
    <<"APPROVED", "SCHEDULED">>,
    <<"SCHEDULED", "APPROVED">>,
    <<"SCHEDULED", "UNDER_REVIEW">>,
    <<"SCHEDULED", "REJECTED">>,
    <<"SCHEDULED", "CANCELLED">>,
    <<"SCHEDULED", "EXPIRED">>,
    <<"HELD", "SUBMITTED">>,
    <<"HELD", "CANCELLED">>,
    <<"HELD", "REJECTED">>,
    <<"SUBMITTED", "COMPLETED">>,
    <<"SUBMITTED", "REJECTED">>
}
\* table ends

States == { move[1] : move \in Moves } \cup { move[2] : move \in Moves }
Finals == { state \in States : \A move \in Moves : move[1] # state }
AtWork == {"RECEIVED", "APPROVED", "HELD"}
ForAPerson == {"UNDER_REVIEW", "AWAITING_OTP", "SCHEDULED"}
Cancellable == {"UNDER_REVIEW", "AWAITING_OTP", "SCHEDULED", "HELD"}
\* "NONE": not claimed yet. "WITHDRAWN": the claim was undone, its customer told that nothing happened.
Ends == Finals \cup {"WITHDRAWN"}

VARIABLES
    row,     \* confirm's table: state, fencing token and has_hold of each payment; `otp`: its review leads to a code
    acc,     \* account's tables for each payment: entry, hold, remembered refusals, highest token written
    bank,    \* partner_bank's instruction for each payment, and the other bank's own books
    worker,  \* what each run of confirm has in memory and waits for
    wire,    \* commands that were sent and can still arrive, once more or late
    told,    \* the final answers that customers have heard
    gate,    \* what risk finds; stored with its first assessment, so it never changes
    later,   \* whether the payment was ordered for a day that has not come yet
    budget   \* faults that may still happen

vars == <<row, acc, bank, worker, wire, told, gate, later, budget>>

Nobody == [pc |-> "idle", p |-> "", tok |-> 0, path |-> <<>>, hold |-> FALSE, otp |-> FALSE, goal |-> "", early |-> FALSE]

Init ==
    /\ row = [p \in Payments |-> [st |-> "NONE", tok |-> 0, hold |-> FALSE, otp |-> FALSE]]
    /\ acc = [p \in Payments |->
                 [booked |-> FALSE, effects |-> 0, hold |-> "none", noBook |-> FALSE, noHold |-> FALSE, tok |-> 0]]
    /\ bank = [p \in Payments |-> [inst |-> "none", tok |-> 0, sent |-> 0, said |-> "none", accepted |-> 0]]
    /\ worker = [c \in Workers |-> Nobody]
    /\ wire = {}
    /\ told = [p \in Payments |-> {}]
    /\ gate \in [Payments -> Gates]
    /\ later \in [Payments -> {FALSE, CanSchedule}]
    /\ budget = Faults

Last(path) == path[Len(path)]
Max(a, b) == IF a > b THEN a ELSE b

----------------------------------------------------------------------------
(***************************************************************************)
(* The ledger (account/domain.py, Batch). One command, one database        *)
(* transaction: Handle(m) is the set of [acc, ans] that may come of m.     *)
(***************************************************************************)
LedgerOps == {"transfer", "hold", "review hold", "keep", "capture", "release"}

IsOpen(a) == a.hold \in {"open", "open, expires"}

RECURSIVE Used(_)
Used(ps) == IF ps = {} THEN 0
            ELSE LET p == CHOOSE x \in ps : TRUE
                 IN  acc[p].effects + (IF IsOpen(acc[p]) THEN 1 ELSE 0) + Used(ps \ {p})

Available == Balance - Used(Payments)

\* "ended": refused because a release came first; else refused for want of money.
No(a) == IF a.noBook /\ a.noHold THEN "ended" ELSE "refused"
Outcome(a, answer) == [acc |-> a, ans |-> answer]
IsStale(m, a) == Flaw # "account_ignores_tokens" /\ m.tok < a.tok
Booked(m, a) == [a EXCEPT !.booked = TRUE, !.effects = @ + 1, !.tok = Max(@, m.tok)]

Transfer(m, a) ==    \* [Batch.transfer]
    IF a.booked THEN {Outcome(a, "booked")}
    ELSE IF a.noBook THEN {Outcome(a, No(a))}
    ELSE IF IsStale(m, a) THEN {Outcome(a, "stale")}
    ELSE LET takesHold == IsOpen(a) /\ (m.x \/ Flaw # "transfer_leaves_hold")
             isCovered == Available + (IF takesHold THEN 1 ELSE 0) >= 1
             refused == Outcome([a EXCEPT !.noBook = TRUE, !.tok = Max(@, m.tok)], "refused")
             done == [Booked(m, a) EXCEPT !.hold = IF takesHold THEN "captured" ELSE @]
         IN  (IF CanBeRefused \/ ~isCovered THEN {refused} ELSE {})
             \cup (IF ~isCovered THEN {}
                   ELSE IF m.x /\ ~IsOpen(a) THEN {Outcome(a, "no hold")}
                   ELSE {Outcome(done, "booked")})
             \cup (IF isCovered /\ Flaw = "key_after_effect"
                   THEN {Outcome([done EXCEPT !.booked = FALSE, !.tok = a.tok], "silence")} ELSE {})

PlaceHold(m, a) ==   \* [Batch.place_hold]
    IF IsStale(m, a) THEN {Outcome(a, "stale")}
    ELSE IF a.booked THEN {Outcome(a, "already booked")}
    ELSE IF a.hold = "released" THEN {Outcome(a, "ended")}
    ELSE IF a.hold = "captured" THEN {Outcome(a, "held")}
    ELSE IF IsOpen(a)
         THEN {Outcome(IF Flaw = "hold_repeat_keeps_token" THEN a
                       ELSE [a EXCEPT !.tok = Max(@, m.tok), !.hold = IF m.op = "hold" THEN "open" ELSE @], "held")}
    ELSE IF a.noHold THEN {Outcome(a, No(a))}
    ELSE LET refused == Outcome([a EXCEPT !.noHold = TRUE, !.tok = Max(@, m.tok)], "refused")
             placed == [a EXCEPT !.hold = IF m.op = "review hold" THEN "open, expires" ELSE "open", !.tok = Max(@, m.tok)]
         IN  (IF CanBeRefused \/ Available < 1 THEN {refused} ELSE {})
             \cup (IF Available < 1 THEN {} ELSE {Outcome(placed, "held")})

KeepHold(m, a) ==    \* [Batch.keep_hold]
    IF IsStale(m, a) THEN {Outcome(a, "stale")}
    ELSE IF a.hold \in {"none", "released"} THEN {Outcome(a, "no hold")}
    ELSE IF a.hold = "captured" THEN {Outcome(a, "held")}
    ELSE {Outcome([a EXCEPT !.hold = IF Flaw = "submitted_hold_expires" THEN @ ELSE "open", !.tok = Max(@, m.tok)],
                  "held")}

CaptureHold(m, a) == \* [Batch.capture_hold]
    IF a.booked THEN {Outcome(a, "booked")}
    ELSE IF a.noBook THEN {Outcome(a, No(a))}
    ELSE IF IsStale(m, a) THEN {Outcome(a, "stale")}
    ELSE IF ~IsOpen(a) THEN {Outcome(a, "no hold")}
    ELSE {Outcome([Booked(m, a) EXCEPT !.hold = "captured"], "booked")}

ReleaseHold(m, a) == \* [Batch.release_hold]: whoever comes later with a command finds a "no"
    IF IsStale(m, a) THEN {Outcome(a, "stale")}
    ELSE IF a.booked THEN {Outcome(a, "already booked")}
    ELSE LET refused == IF Flaw = "release_leaves_no_refusal" THEN a ELSE [a EXCEPT !.noBook = TRUE, !.noHold = TRUE]
             after == IF IsOpen(a) THEN [refused EXCEPT !.hold = "released"] ELSE refused
         IN  {Outcome(IF after = a THEN a ELSE [after EXCEPT !.tok = Max(@, m.tok)], "released")}

Handle(m) ==
    LET a == acc[m.p] IN
    CASE m.op = "transfer" -> Transfer(m, a)
      [] m.op \in {"hold", "review hold"} -> PlaceHold(m, a)
      [] m.op = "keep" -> KeepHold(m, a)
      [] m.op = "capture" -> CaptureHold(m, a)
      [] m.op = "release" -> ReleaseHold(m, a)

----------------------------------------------------------------------------
(***************************************************************************)
(* Messages. What was sent may arrive at any later moment, any number of   *)
(* times, or never; so it is never taken off the wire, except where it can *)
(* never again change anything (which only makes the check quicker).       *)
(***************************************************************************)
Message(w) == [op |-> w.pc, p |-> w.p, tok |-> w.tok, x |-> w.pc = "transfer" /\ w.hold]

IsDead(m, a, b) ==
    IF m.op = "submit" THEN b.inst # "none" /\ m.tok <= b.tok
    ELSE \/ a.booked
         \/ Flaw # "account_ignores_tokens" /\ m.tok < a.tok
         \/ a.noBook /\ (m.op \in {"transfer", "capture"} \/ (a.noHold /\ ~IsOpen(a)))
         \/ a.noHold /\ m.op \in {"hold", "review hold"} /\ ~IsOpen(a)

Alive(ms, accounts, banks) == { m \in ms : ~IsDead(m, accounts[m.p], banks[m.p]) }

\* Worker c becomes w, and sends what w waits for. acc' and bank' are set before.
Become(c, w) ==
    /\ worker' = [worker EXCEPT ![c] = w]
    /\ wire' = Alive(wire \cup (IF w.pc \in LedgerOps \cup {"submit"} THEN {Message(w)} ELSE {}), acc', bank')

\* A command arrives without anybody waiting for its answer: doubled, late, or its answer is lost.
ArriveLate ==
    /\ \E m \in wire : /\ m.op # "submit"
                       /\ \E o \in Handle(m) : /\ o.acc # acc[m.p]
                                               /\ acc' = [acc EXCEPT ![m.p] = o.acc]
    /\ wire' = Alive(wire, acc', bank)
    /\ UNCHANGED <<row, bank, worker, told, gate, later, budget>>

----------------------------------------------------------------------------
(***************************************************************************)
(* What a run of confirm does next, in memory (saga.py). `path` are the    *)
(* states taken since the payment was loaded, that one first.              *)
(***************************************************************************)
Step(w, state) == [w EXCEPT !.path = Append(@, state)]
Wait(w, op) == [w EXCEPT !.pc = op]
Save(w) == Wait(w, "save")
EndUnpaid(w, goal) == [w EXCEPT !.pc = "release", !.goal = goal]    \* [Saga.end_unpaid]
\* A transient failure: the steps taken so far are stored, the lease is given back.
Fail(w) == IF Len(w.path) > 1 THEN Wait(w, "save, stop") ELSE Nobody

\* Clocks differ: to a run that is early the day has come, while to others it has not.
IsForLater(w) == later[w.p] /\ ~w.early
Clocks(p) == IF later[p] THEN {FALSE, TRUE} ELSE {FALSE}

Book(w) ==           \* [Saga._book_approved]
    IF IsForLater(w) THEN Save(Step(w, "SCHEDULED"))
    ELSE IF w.p \in OnUs THEN Wait(w, "transfer")
    ELSE Wait(w, IF w.hold THEN "keep" ELSE "hold")

\* Nothing is held for a payment whose day has not come. [Saga._hold_for_review]
Review(w) ==
    LET reviewed == [w EXCEPT !.otp = gate[w.p] = "review, otp"]
    IN  IF IsForLater(w) THEN Save(Step(reviewed, "UNDER_REVIEW")) ELSE Wait(reviewed, "review hold")

Drive(w) ==          \* [Saga.drive, settle_submitted]
    CASE Last(w.path) = "RECEIVED" ->
             (CASE gate[w.p] = "approve" -> Book(Step(w, "APPROVED"))
                [] gate[w.p] = "otp" -> Save(Step(w, "AWAITING_OTP"))
                [] OTHER -> Review(w))
      [] Last(w.path) = "SUBMITTED" -> Wait(w, "submit")
      [] OTHER -> Book(w)

Submitted(w) ==      \* the intent is stored before anything goes out
    Save([(IF Last(w.path) = "APPROVED" THEN Step(Step(w, "HELD"), "SUBMITTED") ELSE Step(w, "SUBMITTED"))
          EXCEPT !.hold = TRUE])

\* Its money has moved, by a run that did not live to say so. [Payment.end_booked]
EndBooked(w) ==
    LET isUnapproved == Last(w.path) = "RECEIVED" \/ (Last(w.path) = "SCHEDULED" /\ Flaw # "booked_while_scheduled")
    IN  Save(Step(IF isUnapproved THEN Step(w, "APPROVED") ELSE w, "COMPLETED"))

After(w, answer) ==  \* what w becomes when account has answered
    CASE answer = "silence" -> w
      [] answer = "stale" \/ (answer = "ended" /\ Flaw = "ended_is_tried_again") -> Fail(w)
      [] w.pc = "transfer" ->
             (CASE answer = "booked" -> Save(Step(w, "COMPLETED"))
                [] answer \in {"refused", "ended"} \/ w.hold -> EndUnpaid(w, "REJECTED")
                [] OTHER -> Fail(w))
      [] w.pc = "review hold" ->
             (CASE answer = "held" -> Save([Step(w, "UNDER_REVIEW") EXCEPT !.hold = TRUE])
                [] answer = "already booked" /\ w.p \in OnUs -> EndBooked(w)
                [] answer \in {"refused", "ended"} -> EndUnpaid(w, "REJECTED")
                [] OTHER -> Fail(w))
      [] w.pc \in {"hold", "keep"} ->
             (CASE answer = "held" -> Submitted(w)
                [] answer \in {"refused", "ended", "no hold"} -> EndUnpaid(w, "REJECTED")
                [] OTHER -> Fail(w))
      [] w.pc = "capture" -> IF answer = "booked" THEN Save(Step(w, "COMPLETED")) ELSE Fail(w)
      [] w.pc = "release" ->
             (CASE answer = "released" -> Save([Step(w, w.goal) EXCEPT !.hold = FALSE])
                [] w.p \in OnUs -> EndBooked(w)
                [] OTHER -> Fail(w))

\* With this flaw the customer hears the end before it is stored.
ToldEarly(w) == IF Flaw = "answer_before_write" /\ w.pc = "save" /\ Last(w.path) \in Finals
                THEN [told EXCEPT ![w.p] = @ \cup {Last(w.path)}] ELSE told

----------------------------------------------------------------------------
(***************************************************************************)
(* Faults. Where they are counted, each uses up one.                       *)
(***************************************************************************)
Fault == IF budget = AnyNumber THEN UNCHANGED budget ELSE budget > 0 /\ budget' = budget - 1

IsLeased(p) == \E c \in Workers : worker[c].pc # "idle" /\ worker[c].p = p /\ worker[c].tok = row[p].tok

\* A process dies, or its call fails so that nothing more is done: what it has sent may arrive all the same.
Crash(c) ==
    /\ worker[c].pc # "idle"
    /\ Fault
    /\ worker' = [worker EXCEPT ![c] = Nobody]
    /\ UNCHANGED <<row, acc, bank, wire, told, gate, later>>

\* No answer in time, from account: the steps so far are stored.
TimeOut(c) ==
    /\ worker[c].pc \in LedgerOps
    /\ Len(worker[c].path) > 1
    /\ Fault
    /\ worker' = [worker EXCEPT ![c] = Fail(worker[c])]
    /\ UNCHANGED <<row, acc, bank, wire, told, gate, later>>

----------------------------------------------------------------------------
(***************************************************************************)
(* A request comes (confirm_payments): claimed, then driven on; refused at *)
(* once; or not begun, because a service that it needs is away: undone.    *)
(***************************************************************************)
Claim(c, p) ==
    /\ worker[c].pc = "idle"
    /\ row[p].st = "NONE"
    /\ row' = [row EXCEPT ![p] = [st |-> "RECEIVED", tok |-> 1, hold |-> FALSE, otp |-> FALSE]]
    /\ UNCHANGED <<acc, bank, told, gate, later>>
    /\ \E early \in Clocks(p) :
       LET w == [Nobody EXCEPT !.p = p, !.tok = 1, !.path = <<"RECEIVED">>, !.early = early]
       IN  /\ IF early THEN Fault ELSE UNCHANGED budget
           /\ \E next \in {Drive(w), Save(Step(w, "REJECTED")), Wait(w, "withdraw")} : Become(c, next)

Withdraw(c) ==       \* [Store.withdraw]: only what was never taken over
    LET w == worker[c] IN
    /\ \/ w.pc = "withdraw"
       \/ Flaw = "withdraw_what_was_sent" /\ w.pc \in LedgerOps /\ w.path[1] = "RECEIVED"
    /\ IF row[w.p].tok = 1 /\ row[w.p].st = "RECEIVED"
       THEN /\ row' = [row EXCEPT ![w.p].st = "WITHDRAWN"]
            /\ told' = [told EXCEPT ![w.p] = @ \cup {"WITHDRAWN"}]
       ELSE UNCHANGED <<row, told>>
    /\ worker' = [worker EXCEPT ![c] = Nobody]
    /\ UNCHANGED <<acc, bank, wire, gate, later, budget>>

(***************************************************************************)
(* Taking a payment's lease raises its fencing token. That a lease is      *)
(* taken from a run that still works (it was stopped, or is slow) counts   *)
(* as a fault; so does a clock that is early. `nexts` are the runs that    *)
(* may come of the loaded payment.                                         *)
(***************************************************************************)
Loaded(p) == [Nobody EXCEPT !.p = p, !.path = <<row[p].st>>, !.hold = row[p].hold, !.otp = row[p].otp,
                            !.tok = IF Flaw = "takeover_keeps_token" THEN row[p].tok ELSE row[p].tok + 1]

At(early, w) == [w EXCEPT !.early = early]

Take(c, p, nexts) ==
    /\ worker[c].pc = "idle"
    /\ row[p].tok < MaxToken
    /\ row' = [row EXCEPT ![p].tok = Loaded(p).tok]
    /\ UNCHANGED <<acc, bank, told, gate, later>>
    /\ \E next \in nexts : /\ IF IsLeased(p) \/ next.early THEN Fault ELSE UNCHANGED budget
                           /\ Become(c, next)

\* With this flaw an approval is acted on before it is stored.
Approve(w) == IF Flaw = "approval_not_stored" THEN Book(Step(w, "APPROVED")) ELSE Save(Step(w, "APPROVED"))

Resume(c, p) ==      \* [do_what_is_due, and a repeat of the request]
    /\ row[p].st \in AtWork \cup {"SUBMITTED"}
    /\ \E early \in Clocks(p) : Take(c, p, {Drive(At(early, Loaded(p)))})

GiveUp(c, p) ==      \* too long at work: ended instead of made [do_what_is_due, is_overdue]
    /\ row[p].st \in AtWork
    /\ Take(c, p, {EndUnpaid(Loaded(p), "REJECTED")})

Expire(c, p) ==      \* nobody came in time, or it could not be made on its day [do_what_is_due]
    /\ row[p].st \in ForAPerson
    /\ row[p].st = "SCHEDULED" => ~later[p]
    /\ Take(c, p, {EndUnpaid(Loaded(p), "EXPIRED")})

Cancel(c, p) ==      \* [cancel_payments]
    /\ row[p].st \in Cancellable
    /\ Take(c, p, {EndUnpaid(Loaded(p), "CANCELLED")})

EnterCode(c, p) ==   \* [Saga._use_codes]
    /\ row[p].st = "AWAITING_OTP"
    /\ \E early \in Clocks(p) : Take(c, p, {Approve(At(early, Loaded(p)))})

Decide(c, p) ==      \* a compliance officer [decide_reviews]
    /\ row[p].st = "UNDER_REVIEW"
    /\ \E early \in Clocks(p) :
       LET w == At(early, Loaded(p))
           cleared == IF w.otp THEN Save([Step(w, "AWAITING_OTP") EXCEPT !.otp = FALSE]) ELSE Approve(w)
       IN  Take(c, p, {EndUnpaid(w, "REJECTED"), cleared})

Wake(c, p) ==        \* its day has come, to this run: screened again, and approved again before it is booked [Saga._wake]
    /\ row[p].st = "SCHEDULED"
    /\ LET w == At(later[p], Loaded(p))
       IN  Take(c, p, {Approve(w), Wait(w, "review hold"), EndUnpaid(w, "REJECTED")})

HearBank(c, p) ==    \* partner_bank tells the other bank's word [record_bank_answers]
    /\ row[p].st = "SUBMITTED"
    /\ bank[p].inst \in {"accepted", "rejected"}
    /\ LET w == Loaded(p)
       IN  Take(c, p, {IF bank[p].inst = "accepted" THEN Wait(w, "capture") ELSE EndUnpaid(w, "REJECTED")})

----------------------------------------------------------------------------
(***************************************************************************)
(* A run goes on.                                                          *)
(***************************************************************************)
HearAccount(c) ==    \* account handles the command, and its answer arrives
    LET w == worker[c] IN
    /\ w.pc \in LedgerOps
    /\ \E o \in Handle(Message(w)) :
          LET next == After(w, o.ans) IN
          /\ acc' = [acc EXCEPT ![w.p] = o.acc]
          /\ bank' = IF Flaw = "submit_before_intent" /\ w.pc \in {"hold", "keep"} /\ o.ans = "held"
                     THEN [bank EXCEPT ![w.p].sent = 1] ELSE bank
          /\ told' = ToldEarly(next)
          /\ Become(c, next)
    /\ UNCHANGED <<row, gate, later, budget>>

\* What follows once the steps are stored: the run goes on with what it has just stored, or ends.
Stored(w) ==
    IF w.pc = "save" /\ Last(w.path) \in {"APPROVED", "SUBMITTED"}
    THEN Drive([w EXCEPT !.path = <<Last(@)>>]) ELSE Nobody

Store(c) ==          \* [Store.save]: the fencing token is checked in the statement that writes
    LET w == worker[c] IN
    /\ w.pc \in {"save", "save, stop"}
    /\ UNCHANGED <<acc, bank, gate, later, budget>>
    /\ IF row[w.p].tok = w.tok \/ Flaw = "confirm_ignores_tokens"
       THEN /\ row' = [row EXCEPT ![w.p].st = Last(w.path), ![w.p].hold = w.hold, ![w.p].otp = w.otp]
            /\ told' = IF Last(w.path) \in Finals THEN [told EXCEPT ![w.p] = @ \cup {Last(w.path)}] ELSE told
            /\ Become(c, Stored(w))
       ELSE /\ UNCHANGED <<row, told>>
            /\ Become(c, IF Flaw = "overtaken_still_submits" /\ Last(w.path) = "SUBMITTED" THEN Wait(w, "submit") ELSE Nobody)

(***************************************************************************)
(* The other bank. partner_bank stores the instruction, then sends it; a   *)
(* repeat sends nothing under a new id, and enquires.                      *)
(***************************************************************************)
Submit(m) ==         \* what becomes of partner_bank's instruction [open_submissions, send_opened]
    LET b == bank[m.p] IN
    IF b.inst = "none"
    THEN {[b EXCEPT !.inst = "unknown", !.tok = m.tok, !.sent = Max(@, 1)],
          [b EXCEPT !.inst = "rejected", !.tok = m.tok]}                    \* no route to that bank: nothing is sent
    ELSE IF m.tok < b.tok THEN {}
    ELSE {[b EXCEPT !.tok = m.tok,
                    !.sent = IF Flaw = "resend_under_new_id" /\ b.inst = "unknown" THEN 2 ELSE @]}

HearSubmitted(c) ==
    LET w == worker[c] IN
    /\ w.pc = "submit"
    /\ \/ \E b \in Submit(Message(w)) : /\ bank' = [bank EXCEPT ![w.p] = b]
                                        /\ UNCHANGED acc
                                        /\ Become(c, Wait(w, "word"))
       \/ /\ Submit(Message(w)) = {}
          /\ UNCHANGED <<acc, bank>>
          /\ Become(c, Nobody)
    /\ UNCHANGED <<row, told, gate, later, budget>>

SubmitLate ==
    /\ \E m \in wire : /\ m.op = "submit"
                       /\ \E b \in Submit(m) : bank' = [bank EXCEPT ![m.p] = b]
    /\ bank' # bank
    /\ wire' = Alive(wire, acc, bank')
    /\ UNCHANGED <<row, acc, worker, told, gate, later, budget>>

\* The first copy to arrive is decided on, for good; copies under the same id are known as repeats.
OtherBankDecides(p) ==
    /\ bank[p].sent >= 1 /\ bank[p].said = "none"
    /\ \E word \in {"accepted", "rejected"} :
          bank' = [bank EXCEPT ![p].said = word, ![p].accepted = IF word = "accepted" THEN 1 ELSE 0]
    /\ UNCHANGED <<row, acc, worker, wire, told, gate, later, budget>>

OtherBankDecidesAgain(p) ==    \* only with a flaw: another id is another payment
    /\ bank[p].sent = 2 /\ bank[p].said # "none"
    /\ bank' = [bank EXCEPT ![p].accepted = @ + 1, ![p].sent = 1]
    /\ UNCHANGED <<row, acc, worker, wire, told, gate, later, budget>>

\* The word arrives: as the answer, or to an enquiry (pacs.028) that is repeated until it does.
LearnWord(p) ==
    /\ bank[p].inst = "unknown" /\ bank[p].said # "none"
    /\ bank' = [bank EXCEPT ![p].inst = bank[p].said]
    /\ UNCHANGED <<row, acc, worker, wire, told, gate, later, budget>>

HearWord(c) ==       \* unknown: the run rests (Crash), the funds stay held
    LET w == worker[c] IN
    /\ w.pc = "word"
    /\ UNCHANGED <<row, acc, bank, told, gate, later, budget>>
    /\ CASE bank[w.p].inst = "accepted" -> Become(c, Wait(w, "capture"))
         [] bank[w.p].inst = "rejected" -> Become(c, EndUnpaid(w, "REJECTED"))
         [] OTHER -> Flaw = "release_on_timeout" /\ Become(c, EndUnpaid(w, "REJECTED"))

----------------------------------------------------------------------------
ExpireHold(p) ==     \* [Batch.expire_hold]: its hour has passed; submission takes the expiry off
    /\ acc[p].hold = "open, expires"
    /\ acc' = [acc EXCEPT ![p].hold = "released"]
    /\ wire' = Alive(wire, acc', bank)
    /\ UNCHANGED <<row, bank, worker, told, gate, later, budget>>

DayComes(p) ==       \* whatever state the payment is in by then
    /\ later[p]
    /\ later' = [later EXCEPT ![p] = FALSE]
    /\ UNCHANGED <<row, acc, bank, worker, wire, told, gate, budget>>

GoOn(c) == HearAccount(c) \/ Store(c) \/ HearSubmitted(c) \/ HearWord(c) \/ Withdraw(c)
Begin(c, p) == Resume(c, p) \/ GiveUp(c, p) \/ Expire(c, p) \/ Cancel(c, p) \/ EnterCode(c, p) \/ Decide(c, p)
               \/ Wake(c, p) \/ HearBank(c, p)

Next ==
    \/ \E c \in Workers : GoOn(c) \/ Crash(c) \/ TimeOut(c) \/ \E p \in Payments : Claim(c, p) \/ Begin(c, p)
    \/ \E p \in Payments : OtherBankDecides(p) \/ OtherBankDecidesAgain(p) \/ LearnWord(p) \/ ExpireHold(p)
                           \/ DayComes(p)
    \/ ArriveLate \/ SubmitLate

Spec == Init /\ [][Next]_vars

----------------------------------------------------------------------------
(***************************************************************************)
(* What must never break.                                                  *)
(***************************************************************************)
Unpaid == Ends \ {"COMPLETED"}

\* No account is overdrawn, by what has moved and what is reserved together.
NeverOverdrawn == Available >= 0

\* Money moves once for a payment, and a payment that has ended has exactly the effect that its end tells of: money moved
\* for COMPLETED; for the other ends none moved and none held. For ever: a command that arrives later included.
OneEffect == \A p \in Payments : acc[p].effects <= 1
EndsTellTheTruth ==
    \A p \in Payments :
        /\ row[p].st = "COMPLETED" => acc[p].effects = 1 /\ ~IsOpen(acc[p])
        /\ row[p].st \in Unpaid => acc[p].effects = 0 /\ ~IsOpen(acc[p])

\* A customer hears one final answer, and it is the payment's end.
OneFinalAnswer == \A p \in Payments : told[p] \subseteq {row[p].st}

\* Steps are those of the table.
LegalMoves ==
    \A c \in Workers :
        \A i \in 1..(Len(worker[c].path) - 1) : <<worker[c].path[i], worker[c].path[i + 1]>> \in Moves

\* From the wire on, only the other bank's "no" gives the money back, and it accepts a payment once at most.
NoReleaseWithoutWord ==
    \A p \in Payments : bank[p].sent >= 1 /\ acc[p].hold = "released" => bank[p].said = "rejected"
OneAcceptance == \A p \in Payments : bank[p].accepted <= 1
PaidAtBothBanks ==
    \A p \in Payments \ OnUs :
        /\ row[p].st = "COMPLETED" => bank[p].said = "accepted"
        /\ row[p].st \in Unpaid => (bank[p].sent = 0 \/ bank[p].said = "rejected")

\* An end is never left (also: no payment is claimed twice).
EndsStay == [][\A p \in Payments : row[p].st \in Ends => row'[p].st = row[p].st]_vars

(***************************************************************************)
(* Every payment ends, once faults cease: runs go on, what is unfinished   *)
(* is taken over, the other bank decides, its word and every day arrive.   *)
(***************************************************************************)
Recover(p) == \E c \in Workers : ~IsLeased(p) /\ (Resume(c, p) \/ Expire(c, p) \/ HearBank(c, p))

Fairness ==
    /\ \A c \in Workers : WF_vars(GoOn(c))
    /\ \A p \in Payments : WF_vars(Recover(p)) /\ WF_vars(OtherBankDecides(p)) /\ WF_vars(LearnWord(p))
                           /\ WF_vars(DayComes(p))

FairSpec == Spec /\ Fairness

EveryPaymentEnds == \A p \in Payments : row[p].st # "NONE" ~> row[p].st \in Ends

\* With counted faults MaxToken must not be what ends the story.
TokensSuffice == Faults = AnyNumber \/ \A p \in Payments : row[p].tok < MaxToken

Symmetry == Permutations(Workers)
=============================================================================
