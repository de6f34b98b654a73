"""What a training run says of itself where it is tracked."""

from __future__ import annotations

from pathlib import Path

from support.bundles import made_spec

from medseg.bundle.bundle import Bundle
from medseg.events import RunStarted
from medseg.training.run_record import run_started
from medseg.training.runs import plan_run


def start(**sections: object) -> RunStarted:
    bundle = Bundle(made_spec(**sections), Path("/somewhere"))
    return run_started(plan_run(bundle, None, None, 0), {}, 10)


def test_where_the_data_are_is_no_parameter() -> None:
    event = start(data={"root": "/home/mueller_hans/ct"})
    assert "mueller" not in repr(event.parameters)
    assert event.parameters["data.folds"] == "5"
    assert event.parameters["fold"] == "0"


def test_an_experiment_is_named_in_one_form_of_unicode() -> None:
    event = start(tracking={"experiment": "/Users/mu\u0308ller/CT"})
    assert event.experiment == "/Users/m\u00fcller/CT"
    assert start().experiment == "made_up"


def test_the_description_says_what_goes_in_and_comes_out() -> None:
    event = start(description="Made-up organs in T1/T2 [phantoms]")
    text, _, facts = event.description.partition("\n\n")
    assert text == r"Made-up organs in T1/T2 \[phantoms\]"
    assert facts.startswith("- ")


def test_a_description_that_holds_a_path_is_left_out() -> None:
    for path in ("/home/mueller", "C:\\mueller", "~/mueller", "../mueller/x"):
        event = start(description=f"Organs of {path}")
        assert "mueller" not in event.description
        assert event.description.startswith("- ")
