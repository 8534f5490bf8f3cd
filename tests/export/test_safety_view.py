"""What the safety checker gets to see is what transformers' feature extractor would show it."""

import numpy as np
import pytest

from runner.engine.safety import seen

pytestmark = pytest.mark.export


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (576, 1024), (1024, 768), (40, 100), (233, 229), (224, 224)])
def test_as_the_feature_extractor_of_stable_diffusion(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessor

    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    extractor = CLIPImageProcessor(do_rescale=False, do_normalize=False)
    (theirs,) = extractor(picture, input_data_format="channels_last").pixel_values
    np.testing.assert_array_equal(seen(picture), np.moveaxis(theirs, 0, -1))
