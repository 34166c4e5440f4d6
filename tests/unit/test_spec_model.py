"""The model and the code speak of the same thing: table, sets of states, names, documents. Needs no Java."""

from __future__ import annotations

import re

import pytest

from payflow.contracts.confirm import PaymentState
from payflow.services.account.domain import Batch
from payflow.services.confirm import domain
from payflow.services.confirm.domain import MACHINE, states
from payflow_dev.spec import proofs
from payflow_dev.spec.tlc import ROOT, SPEC, CheckFailed, read_output

MODEL = (SPEC / "payment.tla").read_text()
PAGE = (ROOT / "docs" / "model-checking.md").read_text()


def words_of(name: str) -> set[str]:
    """A set of words that payment.tla gives a name."""
    match = re.search(rf"^{name} == \{{([^}}]*)\}}", MODEL, re.MULTILINE)
    assert match is not None, name
    return set(re.findall(r'"([^"]+)"', match[1]))


def test_the_models_transition_table_is_confirms() -> None:
    assert proofs.transition_table() == {(source.value, target.value) for source, target in MACHINE.transitions()}


def test_the_models_sets_of_states_are_confirms() -> None:
    scheduled = {PaymentState.SCHEDULED}

    assert words_of("Cancellable") == {state.value for state in domain.CANCELLABLE}
    assert words_of("ForAPerson") == {state.value for state in domain.WAITS_FOR_A_PERSON | scheduled}
    assert words_of("AtWork") == {state.value for state in states.AT_WORK}


def test_every_function_that_the_model_names_exists() -> None:
    comments = re.findall(r"(?:\\\*|\(\*)(.*)", MODEL)
    named = {name for comment in comments for group in re.findall(r"\[([^\]|]+)\]", comment) for name in
             re.findall(r"\b(?:[A-Z]\w+\.\w+|[a-z]+(?:_[a-z]+)+)\b", group)}  # fmt: skip
    source = "\n".join(path.read_text() for path in (ROOT / "src/payflow/services").rglob("*.py"))

    missing = {name for name in named if not re.search(rf"def {name.rpartition('.')[2]}\(", source)}

    assert len(named) > 20
    assert missing == set()
    assert all(hasattr(Batch, name.removeprefix("Batch.")) for name in named if name.startswith("Batch."))


def test_every_flaw_of_the_model_is_planted_and_looked_for() -> None:
    assert sorted(words_of("Flaws")) == sorted(planted.flaw for planted in proofs.PLANTED)


@pytest.mark.parametrize("flaw", sorted(words_of("Flaws")))
def test_a_flaw_that_is_switched_on_does_something(flaw: str) -> None:
    assert re.search(rf'Flaw (=|#) "{flaw}"', MODEL)


@pytest.mark.parametrize("planted", proofs.PLANTED, ids=lambda planted: planted.flaw)
def test_a_flaw_is_switched_on_in_the_configuration_that_must_find_it(planted: proofs.Planted) -> None:
    switched = proofs.with_flaw(proofs.config_of(planted.config), planted.flaw)

    assert f'Flaw = "{planted.flaw}"' in switched
    assert "TokensSuffice" not in switched


def test_every_configuration_is_proved_and_says_what_it_covers() -> None:
    assert {path.stem for path in SPEC.glob("*.cfg")} == set(proofs.PROOFS)
    assert all(proofs.scope_of(name).endswith(".") for name in proofs.PROOFS)
    assert set(proofs.QUICK) <= set(proofs.PROOFS)


@pytest.mark.parametrize("name", proofs.PROOFS)
def test_no_configuration_has_a_flaw_or_leaves_an_invariant_out(name: str) -> None:
    config = proofs.config_of(name)
    invariants = {"NeverOverdrawn", "OneEffect", "EndsTellTheTruth", "OneFinalAnswer", "LegalMoves"} | {
        "NoReleaseWithoutWord",
        "OneAcceptance",
        "PaidAtBothBanks",
    }

    assert 'Flaw = "none"' in config
    assert invariants <= set(config.split()) or "PROPERTY EveryPaymentEnds" in config


def test_the_page_tells_of_every_configuration_flaw_and_property() -> None:
    properties = set(
        re.findall(r"^    (\w+)$|^PROPERTY (\w+)$|^INVARIANT (\w+)$", proofs.config_of("payment"), re.MULTILINE)
    )
    wanted = {*proofs.PROOFS, *words_of("Flaws"), *(name for group in properties for name in group if name)}

    assert {name for name in wanted if f"`{name}`" not in PAGE} == set()


PROVED = """
Model checking completed. No error has been found.
1,731,240 states generated, 244,782 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 33.
"""
REFUTED = """
Error: Invariant OneFinalAnswer is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
/\\ budget = AnyNumber
State 2: <Claim line 306, col 5 to line 315, col 76 of module payment>
/\\ told = (p1 :> {})
State 3: <HearAccount(c1) line 386, col 5 to line 396, col 50 of module payment>
/\\ told = (p1 :> {"COMPLETED"})
57 states generated, 34 distinct states found, 20 states left on queue.
"""
ENDLESS = """
Error: Temporal properties were violated.
State 2: <Resume(c1,p1) line 352, col 5 to line 353, col 40 of module payment>
9 states generated, 5 distinct states found, 0 states left on queue.
"""


def test_a_proof_is_read_as_figures() -> None:
    result = read_output(PROVED, is_proved=True, seconds=18.5)

    assert (result.generated, result.distinct, result.depth) == (1_731_240, 244_782, 33)
    assert (result.violated, result.steps) == (None, ())


def test_a_counterexample_is_read_as_what_is_broken_and_the_steps_to_it() -> None:
    result = read_output(REFUTED, is_proved=False, seconds=1)

    assert result.violated == "OneFinalAnswer"
    assert result.steps == ("Claim", "HearAccount")


def test_a_broken_promise_that_something_happens_has_a_name_too() -> None:
    assert read_output(ENDLESS, is_proved=False, seconds=1).violated == "EveryPaymentEnds"


def test_output_without_figures_is_no_proof() -> None:
    with pytest.raises(CheckFailed):
        read_output("Parsing or semantic analysis failed.", is_proved=True, seconds=1)
