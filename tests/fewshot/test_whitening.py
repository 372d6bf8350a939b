"""Within-class whitening against its definition."""

import numpy as np
import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.fewshot.whitening import LENGTH, Whitening, whitening_matrix


def clips(classes=6, each=40, dim=5, seed=0):
    """Classes that differ little, and clips that differ a lot in two directions of all classes."""
    random = np.random.default_rng(seed)
    mix = random.standard_normal((dim, dim)) * [8, 5, 1, 1, 0.5][:dim]
    codes = np.repeat(np.arange(classes), each)
    z = random.standard_normal((classes, dim))[codes] * 2 + random.standard_normal((len(codes), dim)) @ mix.T
    return torch.from_numpy(z), torch.from_numpy(codes)


def test_the_within_class_covariance_becomes_the_identity():
    z, codes = clips()
    white = z @ whitening_matrix(z, codes, 1e-9).T
    rest = np.concatenate([white[codes == c] - white[codes == c].mean(0) for c in range(6)])
    np.testing.assert_allclose(rest.T @ rest / len(rest), np.eye(5), atol=1e-6)


def test_full_shrinkage_standardises_alone():
    z, codes = clips()
    matrix = whitening_matrix(z, codes, 1.0)
    expected = torch.diag(1 / z.std(0))
    torch.testing.assert_close(matrix / matrix[0, 0], expected / expected[0, 0])


def test_new_classes_are_told_apart_better():
    z, codes = clips(classes=40, each=30)
    known = codes < 20
    module = Whitening(5, 0.01)
    torch.testing.assert_close(module(z.float()), z.float())  # not fitted: the identity
    module.fit(z[known], codes[known])
    new, names = z[~known].float(), codes[~known]

    def right(x):
        means = torch.stack([x[names == c][:15].mean(0) for c in range(20, 40)])
        asked = torch.cat([x[names == c][15:] for c in range(20, 40)])
        return float((torch.cdist(asked, means).argmin(1) == torch.arange(20).repeat_interleave(15)).float().mean())

    assert right(module(new)) > right(new) + 0.05
    torch.testing.assert_close(module(new).norm(dim=1), torch.full((len(new),), LENGTH))


def test_it_travels_with_the_weights():
    z, codes = clips()
    one, two = Whitening(5, 0.1), Whitening(5, 0.1)
    one.fit(z, codes)
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(z.float()), two(z.float()))


def test_mistakes():
    with pytest.raises(UserError, match=r"task.whiten=2"):
        Whitening(3, 2.0)
    with pytest.raises(UserError, match="no training class has two clips"):
        whitening_matrix(torch.randn(3, 2), torch.arange(3), 0.1)
