"""The tiny data that the documentation names is what the tests make."""

from pathlib import Path

from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.sources import DataFiles
from support.eval_data import write_eval_data

HERE = Path(__file__).parent / "data"


def test_the_folder_in_the_documentation_is_up_to_date(tmp_path) -> None:
    write_eval_data(tmp_path)
    for benchmark in BENCHMARKS.values():
        with DataFiles.find(HERE, benchmark.sources) as kept, DataFiles.find(tmp_path, benchmark.sources) as made:
            for source in benchmark.sources:
                assert list(kept.all_rows(source.name)) == list(made.all_rows(source.name)), source.name
