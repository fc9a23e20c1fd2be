import numpy as np
import pytest

from trainer.augmentation import AugmentedViews, crop
from trainer.batches import Ahead, pass_order


def images(count: int = 5, height: int = 6, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def test_a_crop_is_the_window_of_the_reflected_image():
    pixels, pad = images(), 2
    offsets = np.array([[0, 0], [4, 4], [2, 2], [1, 3], [3, 0]], np.uint8)
    padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    for got, source, (row, column) in zip(crop(pixels, offsets, pad), padded, offsets, strict=True):
        assert np.array_equal(got, source[row : row + 6, column : column + 7])


def test_views_are_seeded_and_more_views_extend_fewer():
    few, many = (AugmentedViews.draw(n, 50, 4, flip=True, seed=3) for n in (3, 9))
    assert np.array_equal(few.offsets, many.offsets[:3])
    assert np.array_equal(few.flips, many.flips[:3])
    other = AugmentedViews.draw(3, 50, 4, flip=True, seed=4)
    assert not np.array_equal(few.offsets, other.offsets)


def test_neighbouring_views_show_both_sides_of_an_image():
    plan = AugmentedViews.draw(4, 100, 4, flip=True, seed=0)
    assert np.all(plan.flips[0] != plan.flips[1])
    assert not AugmentedViews.draw(4, 100, 4, flip=False, seed=0).flips.any()


def test_a_flip_mirrors_the_columns():
    pixels = images()
    plan = AugmentedViews(0, np.zeros((1, 5, 2), np.uint8), np.array([[True, False, True, False, False]]))
    cut = plan.cut(pixels, 0, np.arange(5))
    assert np.array_equal(cut[0], pixels[0, :, ::-1])
    assert np.array_equal(cut[1], pixels[1])
    assert not np.shares_memory(cut, pixels)


def test_an_order_depends_on_pass_and_seed_alone():
    assert np.array_equal(pass_order(100, 3, 7), pass_order(100, 3, 7))
    assert not np.array_equal(pass_order(100, 3, 7), pass_order(100, 4, 7))
    assert sorted(pass_order(100, 3, 7)) == list(range(100))


def test_batches_come_in_order_and_errors_reach_the_consumer():
    assert list(Ahead(lambda n: n * n, 2, 6)) == [4, 9, 16, 25]

    def fails(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError
        return number

    batches = iter(Ahead(fails, 0, 3))
    assert next(batches) == 0
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_closing_ends_the_thread_of_a_producer_that_is_not_read():
    ahead = Ahead(lambda n: n, 0, 1000)
    ahead.close()
    assert not ahead._thread.is_alive()
