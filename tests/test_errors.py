"""What is offered to somebody who has named something that is not there."""

from tonnetz.errors import near

KNOWN = ['Gallop, "wild" & free', "The Last Gallop", "Gallup", "/x/gallop-2.wav", "Waltz"]


def test_names_that_hold_the_word_are_near():
    assert near("Gallop", KNOWN) == '; near ones: Gallop, "wild" & free, /x/gallop-2.wav, The Last Gallop'
    assert near("gallop", KNOWN, most=1) == '; near ones: Gallop, "wild" & free'


def test_misspelt_names_are_near_and_others_are_not():
    assert near("Walz", KNOWN) == "; near ones: Waltz"
    assert near("galop-2.wav", KNOWN) == "; near ones: /x/gallop-2.wav"
    assert near("Sarabande", KNOWN) == ""
