"""The services around confirm and account: they answer by script, keep what they have answered, and never guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from payflow.contracts.account import CreditorUnreachable, StaleCommand
from payflow.contracts.confirm import PaymentView, RecordBankAnswer
from payflow.contracts.operation import Answers
from payflow.contracts.otp import InvalidOtp, IssueOtp, OtpExpired, OtpIssued, OtpVerified, VerifyOtp
from payflow.contracts.partner_bank import BankStatus, InvalidInstruction, SubmissionStatus, SubmitCreditTransfer
from payflow.contracts.risk import Assessed, AssessPayment, RiskLevel
from payflow.kernel.errors import Rejection
from tests.simulation.nodes import BEGIN, Life, Link, SimulatedIds
from tests.simulation.weather import World

OTHER_BANK: Final = "NORDDEFF"
RIGHT_CODE: Final = "123456"
LISTED: Final = "Listed"
NEEDS_OTP_MINOR: Final = 1_000_000


class Banks:
    """Account's directory of banks: every account whose number begins with X is at the other one."""

    def agent_of(self, *, account: str, agent_bic: str | None) -> str | CreditorUnreachable:
        return OTHER_BANK if account.startswith("X") else CreditorUnreachable()

    def country_of(self, account: str) -> str | None:
        return None


class Risk:
    """Amounts above 10,000.00 need a code, a party called "Listed" a review. The first assessment stays.

    On a scheduled payment's day a party may be listed that was not, or its customer be known less well. A payment has
    at most one review.
    """

    def __init__(self, world: World) -> None:
        self._world, self._ids = world, SimulatedIds(world)
        self.assessed: dict[UUID, Assessed] = {}
        self.commands: dict[UUID, AssessPayment] = {}
        self.reassessed: dict[UUID, Assessed] = {}

    async def assess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        return [self.assessed.get(command.payment_id) or self._assess(command) for command in commands]

    async def reassess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        return [self.reassessed.get(command.payment_id) or self._reassess(command) for command in commands]

    def case_of(self, payment_id: UUID) -> UUID | None:
        """The review that is to be decided now."""
        latest = self.reassessed.get(payment_id) or self.assessed.get(payment_id)
        return None if latest is None else latest.review_id

    def _assess(self, command: AssessPayment) -> Assessed:
        is_match = LISTED in command.party_names
        needs_otp = command.amount_minor > NEEDS_OTP_MINOR
        assessed = self._found(command, needs_otp=needs_otp, review_id=self._ids.new() if is_match else None)
        self.assessed[command.payment_id] = assessed
        self.commands[command.payment_id] = command
        return assessed

    def _reassess(self, command: AssessPayment) -> Assessed:
        before, drawn = self.assessed[command.payment_id], self._world.chance.random()
        is_listed_now, is_known_less = drawn < 0.1, 0.1 < drawn < 0.2
        review_id = before.review_id or (self._ids.new() if is_listed_now else None)
        found = self._found(command, needs_otp=before.needs_otp or is_known_less, review_id=review_id)
        self.reassessed[command.payment_id] = found
        return found

    def _found(self, command: AssessPayment, *, needs_otp: bool, review_id: UUID | None) -> Assessed:
        sanctions_points = 0 if review_id is None else 100
        points = (50 if needs_otp else 0) + sanctions_points
        return Assessed(
            payment_id=command.payment_id,
            level=RiskLevel.HIGH if points >= 50 else RiskLevel.LOW,
            points=points,
            sanctions_points=sanctions_points,
            needs_otp=needs_otp,
            is_possible_sanctions_match=review_id is not None,
            review_id=review_id,
            rules_hit=[],
            rules_version=1,
            assessed_at=BEGIN,
        )


class Otp:
    """Every challenge has the same code; a code is used once, and the same attempt may be repeated."""

    def __init__(self, world: World) -> None:
        self._ids = SimulatedIds(world)
        self.used: dict[UUID, UUID] = {}

    async def issue(self, commands: list[IssueOtp]) -> Answers[OtpIssued]:
        return [OtpIssued(challenge_id=self._ids.new(), expires_at=BEGIN, is_new=True) for _ in commands]

    async def verify(self, commands: list[VerifyOtp]) -> Answers[OtpVerified]:
        return [self._verify(command) for command in commands]

    def _verify(self, command: VerifyOtp) -> OtpVerified | Rejection:
        if command.code != RIGHT_CODE:
            return InvalidOtp("The one-time password is wrong.", tries_left=4)
        if self.used.setdefault(command.payment.payment_id, command.attempt_id) != command.attempt_id:
            return OtpExpired()
        return OtpVerified(challenge_id=self._ids.new(), verified_at=BEGIN)


@dataclass(slots=True)
class Instruction:
    """What partner_bank has stored about a payment: its word is told once, and never changes."""

    token: int
    status: BankStatus = BankStatus.UNKNOWN
    refusal: Rejection | None = None
    is_on_the_way: bool = False


class OtherBank:
    """The other bank's own books: what it has accepted, and what it has said, by end-to-end id."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.said: dict[str, BankStatus] = {}
        self.accepted: dict[UUID, list[tuple[str, int]]] = {}

    def decide(self, command: SubmitCreditTransfer) -> BankStatus:
        """Decide on a credit transfer, once per end-to-end id."""
        known = self.said.get(command.end_to_end_id)
        if known is not None:
            return known
        is_accepted = self._world.chance.random() < 0.8
        word = BankStatus.ACCEPTED if is_accepted else BankStatus.REJECTED
        self.said[command.end_to_end_id] = word
        if is_accepted:
            self.accepted.setdefault(command.payment_id, []).append((command.end_to_end_id, command.amount_minor))
        return word


class PartnerBank:
    """One instruction per payment; highest fencing token; silence is told as UNKNOWN, and asked about until it ends."""

    def __init__(self, life: Life, *, books: OtherBank, instructions: dict[UUID, Instruction], confirm: Link) -> None:
        self._life, self._world = life, life.world
        self._books, self._confirm = books, confirm
        self.instructions = instructions

    async def submit(self, commands: list[SubmitCreditTransfer]) -> Answers[SubmissionStatus]:
        answers: Answers[SubmissionStatus] = [self._store(command) for command in commands]
        await self._life.hop()
        for index, command in enumerate(commands):
            if isinstance(answers[index], SubmissionStatus):
                answers[index] = self._send(command)
        await self._life.hop()
        return answers

    def _store(self, command: SubmitCreditTransfer) -> SubmissionStatus | StaleCommand | Rejection:
        known = self.instructions.get(command.payment_id)
        if known is None:
            known = self.instructions[command.payment_id] = Instruction(token=command.fencing_token)
            if self._world.chance.random() < 0.05:
                known.refusal = InvalidInstruction("The creditor's name is too long.")
        if command.fencing_token < known.token:
            return StaleCommand()
        known.token = command.fencing_token
        return known.refusal or self._status(command.payment_id, known)

    def _send(self, command: SubmitCreditTransfer) -> SubmissionStatus:
        """Ask the other bank; where it is silent, its word comes later, if the message has arrived at all."""
        known = self.instructions[command.payment_id]
        if known.status is BankStatus.UNKNOWN:
            if not self._world.happens("bank_silent"):
                known.status = self._books.decide(command)
            elif not known.is_on_the_way and self._world.chance.random() < 0.7:
                known.is_on_the_way = True
                self._life.spawn(self._hear_later(command), about="late word")
        return self._status(command.payment_id, known)

    def _status(self, payment_id: UUID, known: Instruction) -> SubmissionStatus:
        return SubmissionStatus(
            payment_id=payment_id,
            status=known.status,
            reason_code="AC04" if known.status is BankStatus.REJECTED else None,
            answered_at=BEGIN,
        )

    async def _hear_later(self, command: SubmitCreditTransfer) -> None:
        """The other bank decides some time later; confirm is told until it has taken the word."""
        known, random = self.instructions[command.payment_id], self._world.chance.random
        await self._life.pause(60 * random() ** 2)
        known.status = self._books.decide(command)
        known.is_on_the_way = False
        word = RecordBankAnswer(
            payment_id=command.payment_id, is_accepted=known.status is BankStatus.ACCEPTED, reason_code="AC04"
        )
        for _ in range(20):
            await self._life.pause(5 * random())
            (answer,) = await self._confirm.record_bank_answer([word])
            if isinstance(answer, (PaymentView, Rejection)):
                return
