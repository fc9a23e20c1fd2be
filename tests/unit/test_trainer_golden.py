import numpy as np

from trainer.golden import golden_image, golden_tolerance


def test_the_golden_image_is_seeded_and_uses_all_shades():
    image = golden_image((32, 24, 3), seed=1)
    assert image.dtype == np.uint8
    assert image.shape == (32, 24, 3)
    assert (image.min(), image.max()) == (0, 255)
    assert np.array_equal(image, golden_image((32, 24, 3), seed=1))
    assert not np.array_equal(image, golden_image((32, 24, 3), seed=2))


def test_the_tolerance_admits_what_was_seen_and_one_int8_step_more():
    golden = np.array([1.0, 2.0], np.float32)
    answers = [np.array([1.05, 2.0], np.float32), np.array([1.0, 1.8], np.float32)]
    tolerance = golden_tolerance(golden, answers, [0.1])
    another_cpu = np.array([1.0, 1.8 - 0.1], np.float32)
    assert np.max(np.abs(another_cpu - golden)) <= tolerance
    assert np.max(np.abs(np.array([1.0, 1.5]) - golden)) > tolerance


def test_the_tolerance_is_never_zero():
    assert golden_tolerance(np.zeros(2, np.float32), [np.zeros(2, np.float32)], []) > 0
