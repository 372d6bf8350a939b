"""The choice of the key, against plain loops."""

import pytest
import torch

from tonnetz.transposition import best_turn, in_one_key, in_semitones, likely_turns, transpose, turn_towards, turned


def test_turned_holds_every_key_or_the_vectors_as_they_are():
    z = torch.randn(2, 3, 24)
    every = turned(z)
    assert every.shape == (12, 2, 3, 24)
    for semitones in range(12):
        torch.testing.assert_close(every[semitones], transpose(z, semitones))
    torch.testing.assert_close(turned(z, 1), z[None])


@pytest.mark.parametrize("seed", range(10))
def test_the_best_third_of_the_windows_decide(seed):
    random = torch.Generator().manual_seed(seed)
    near = torch.rand(12, 5, 10, generator=random)
    valid = torch.arange(10) < torch.randint(1, 11, (5, 1), generator=random)
    found = best_turn(near.masked_fill(~valid, -torch.inf))
    for pair in range(5):
        size = int(valid[pair].sum())
        sums = [sum(sorted(row[pair, :size].tolist())[::-1][: max(1, size // 3)]) for row in near]
        assert found[pair] == sums.index(max(sums))
        alone = best_turn(near[:, pair, :size])  # without padding and neighbours
        assert found[pair] == alone


def test_a_missing_part_does_not_change_the_key():
    """Four of twelve windows are in the other recording, a fifth above; the others are vaguely like something else."""
    near = torch.full((12, 1, 12), 0.4)
    near[3] = 0.6
    near[7, :, :4], near[7, :, 4:] = 0.9, 0.1
    assert near[3].sum() > near[7].sum()
    assert best_turn(near).tolist() == [7]


def test_a_short_recording_in_a_long_one_decides_the_key():
    """Nine of ninety windows are in the other recording, a fifth above; the others are vaguely like it elsewhere."""
    near = torch.full((12, 1, 90), 0.4)
    near[3] = 0.6
    near[7, :, :9] = 0.9
    assert best_turn(near).tolist() == [3]
    assert best_turn(near, torch.tensor([9])).tolist() == [7]


def test_nothing_to_go_by_is_some_key():
    assert best_turn(torch.full((12, 2, 4), -torch.inf)).tolist() == [0, 0]


def test_vectors_turn_towards_their_reference():
    reference = torch.randn(6, 24)
    keys = torch.tensor([0, 1, 5, 6, 11, 7])
    z = torch.stack([transpose(r, -int(k)) for r, k in zip(reference, keys, strict=True)])
    same, key = turn_towards(z, reference)
    torch.testing.assert_close(same, reference)
    assert key.tolist() == keys.tolist()
    assert turn_towards(z, reference, 1)[1].tolist() == [0] * 6
    assert [in_semitones(turn) for turn in (0, 5, 6, 7, 11)] == [0, 5, 6, -5, -1]


@pytest.mark.parametrize("turns", [1, 12])
def test_one_key_a_pair_equals_a_loop(turns):
    random = torch.Generator().manual_seed(3)
    a, b = torch.randn(4, 9, 24, generator=random), torch.randn(4, 7, 24, generator=random)
    real_a = torch.arange(9) < torch.tensor([9, 6, 1, 4])[:, None]
    real_b = torch.arange(7) < torch.tensor([7, 1, 3, 7])[:, None]
    a[0, 3] = torch.nan  # a place without a window
    cells, key = in_one_key(a, b, real_a, real_b, turns)
    for p in range(4):
        one, two = a[p, real_a[p]], b[p, real_b[p]]
        near = torch.stack([(z @ two.T).nan_to_num(-torch.inf).amax(-1) for z in turned(one, turns)])
        assert key[p] == best_turn(near, torch.tensor(len(two)))
        torch.testing.assert_close(
            cells[p][real_a[p]][:, real_b[p]], transpose(one, int(key[p])) @ two.T, equal_nan=True
        )
        assert cells[p][~real_a[p]].isnan().all()
        assert cells[p][:, ~real_b[p]].isnan().all()
    assert (key == 0).all() == (turns == 1)


def test_likely_turns_are_those_whose_profiles_agree_best():
    a, b = torch.randn(4, 1, 12), torch.randn(1, 3, 12)
    chosen = torch.stack(likely_turns(a, b, 3), -1)  # (4, 3, 12)
    assert (chosen.sum(-1) == 3).all()
    agreement = torch.stack([(a.roll(turn, -1) * b).sum(-1) for turn in range(12)], -1)
    assert (agreement[chosen].view(4, 3, 3).amin(-1) > agreement.masked_fill(chosen, -torch.inf).amax(-1)).all()
    assert likely_turns(a, b, 1)[0].shape == (4, 3)
