import subprocess
import sys

import pytest

import pixsieve

HEAVY = ("numpy", "pyarrow", "duckdb", "PIL", "torch", "rich", "click", "msgspec", "yaml")


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_a_plain_import_loads_nothing_heavy():
    code = f"import sys, pixsieve; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]\n"


def test_the_public_names_are_sorted_and_there():
    assert pixsieve.__all__ == sorted(pixsieve.__all__)
    for name in pixsieve.__all__:
        assert getattr(pixsieve, name) is not None
        assert name in dir(pixsieve)


def test_names_mean_the_same_in_whatever_order_things_are_imported():
    first = "from pixsieve import verify, why, Pipeline; import pixsieve.verify, pixsieve.why;"
    second = "import pixsieve.verify, pixsieve.why; from pixsieve import verify, why, Pipeline;"
    said = "print(verify.verify.__module__, why.why.__module__, Pipeline.__module__)"
    expected = "pixsieve.verify.run pixsieve.why pixsieve.pipeline\n"
    assert run(first + said) == run(second + said) == expected


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pixsieve' has no attribute 'Pipelin'"):
        _ = pixsieve.Pipelin


def test_the_pipeline_of_the_first_page_can_be_built():
    from pixsieve import Pipeline  # noqa: PLC0415  # as users write it
    from pixsieve.stages import FilterStage, ImageReaderStage, ImageWriterStage  # noqa: PLC0415

    pipeline = Pipeline(name="photos")
    pipeline.add_stage(ImageReaderStage("photos/"))
    pipeline.add_stage(FilterStage("least(width, height) >= 256"))
    pipeline.add_stage(
        ImageWriterStage(
            output_dir="out/",
            images_per_tar=1000,
            remove_image_data=True,
            verbose=True,
            deterministic_name=True,
        )
    )
    assert "FilterStage" in pipeline.describe()
