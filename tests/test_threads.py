"""One thread an operation, and the former number afterwards whatever happens."""

import pytest
import torch

from tonnetz.threads import one_thread


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_comes_back(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 / 0
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
