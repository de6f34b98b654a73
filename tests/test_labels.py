"""Labels: indices, names, values, colours."""

from __future__ import annotations

import pytest

from medseg.labels import Label, LabelSet, Region, default_colour


def labels(*names: str) -> LabelSet:
    return LabelSet(
        [
            Label(n, name, 10 * n, default_colour(n))
            for n, name in enumerate(names, start=1)
        ]
    )


def test_a_label_set_is_a_sequence_of_its_labels() -> None:
    both = labels("liver", "kidney")
    assert len(both) == 2
    assert both[1].name == "kidney"
    assert [label.index for label in both] == [1, 2]
    assert both.names == ("liver", "kidney")
    assert both.channels == 3
    assert repr(both) == "LabelSet(1=liver, 2=kidney)"


def test_values_and_colours_lead_to_indices() -> None:
    both = labels("liver", "kidney")
    assert both.values == {0: 0, 10: 1, 20: 2}
    assert both.colours == {
        (0, 0, 0): 0,
        default_colour(1): 1,
        default_colour(2): 2,
    }


def test_equal_sets_are_equal() -> None:
    assert labels("a") == labels("a")
    assert hash(labels("a")) == hash(labels("a"))
    assert labels("a") != labels("b")
    assert labels("a") != ["a"]


@pytest.mark.parametrize("indices", [[0], [2], [1, 3], [2, 1], [1, 1]])
def test_indices_without_order_are_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be 1, 2, …"):
        LabelSet([Label(index, "x", index, (1, 1, 1)) for index in indices])


def test_default_colours_are_bytes_and_the_first_ten_differ() -> None:
    colours = [default_colour(index) for index in range(1, 30)]
    assert len(set(colours[:10])) == 10
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert (0, 0, 0) not in colours


def test_ignore_label_has_the_index_after_the_labels() -> None:
    plain = labels("liver", "kidney")
    partly = LabelSet(tuple(plain), ignore=99)
    assert plain.ignore_index is None
    assert partly.ignore_index == partly.channels == 3
    assert partly.values == plain.values | {99: 3}
    assert partly.colours == plain.colours | {(99, 99, 99): 3}
    # No grey of 8 bits.
    assert LabelSet(tuple(plain), ignore=256).colours == plain.colours
    assert partly != plain
    assert partly == LabelSet(tuple(plain), ignore=99)
    assert hash(partly) == hash(LabelSet(tuple(plain), ignore=99))


def test_each_label_is_a_region_unless_regions_are_given() -> None:
    plain = labels("edema", "tumour")
    assert not plain.has_regions
    assert plain.regions == (
        Region("edema", (1,), 1, 1),
        Region("tumour", (2,), 2, 2),
    )
    whole = (
        Region("whole", (1, 2), 0, 1),
        Region("core", (2,), 1, 2),
        Region("x", (2,), 2, 2),
    )
    nested = LabelSet(tuple(plain), regions=whole)
    assert nested.has_regions
    assert nested.regions == whole
    assert (nested.channels, nested.classes) == (3, 3)
    assert (plain.channels, plain.classes) == (3, 3)
    assert LabelSet(tuple(plain), regions=whole[:2]).channels == 2
    assert nested != plain


def test_a_label_has_every_value_and_colour_that_means_it() -> None:
    labels = LabelSet(
        [
            Label(
                1,
                "myelin",
                value=127,
                colour=(9, 0, 0),
                other_values=(128,),
                other_colours=((8, 0, 0),),
            )
        ],
        ignore=[255, (224, 224, 192)],
        background=[3, (255, 255, 250)],
    )

    assert labels.values == {0: 0, 3: 0, 127: 1, 128: 1, 255: 2}
    assert labels.colours == {
        (0, 0, 0): 0,
        (3, 3, 3): 0,
        (255, 255, 250): 0,
        (9, 0, 0): 1,
        (8, 0, 0): 1,
        (255, 255, 255): 2,
        (224, 224, 192): 2,
    }


def test_the_value_0_may_be_a_label_or_unlabelled() -> None:
    road = Label(1, "road", value=0, colour=(128, 64, 128))
    person = Label(1, "person", value=3, colour=(128, 64, 128))

    assert LabelSet([road]).values == {0: 1}
    assert LabelSet([person], ignore=[0, 255]).values == {0: 2, 3: 1, 255: 2}


def test_another_ignore_label_leaves_all_else() -> None:
    labels = LabelSet(
        [Label(1, "x", value=1, colour=(1, 2, 3))],
        background=[7],
        colour_coded=True,
    )

    other = labels.with_ignore(9)

    assert other.values == {0: 0, 7: 0, 1: 1, 9: 2}
    assert other.colour_coded
    assert other != labels
