"""The HNSW index, with a sidecar file by which a mismatched graph is refused.

Scores are similarities (dot product or cosine, higher is better); hnswlib's distances do not leave this file.
"""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from research.errors import UserError
from research.progress import bar
from research.retrieval.exact import check_dims
from research.runs.disk import disk_error, require_space
from research.runs.files import write_json
from research.runs.hashes import hash_file, hash_strings
from research.runs.locks import exclusive
from research.runs.reading import read_json

if TYPE_CHECKING:  # see _graph
    from hnswlib import Index

ADD_CHUNK = 1000  # vectors added between two updates of the progress bar
SIDECAR = "index.json"
HNSW_SEED = 100


class HnswIndex:
    """A hnswlib graph and the facts it was built from.

    Args:
        graph: the hnswlib index.
        sidecar: what `build` recorded.
    """

    def __init__(self, graph: "Index", sidecar: dict):
        self.graph = graph
        self.sidecar = sidecar

    @classmethod
    def build(
        cls,
        folder: Path,
        docs: np.ndarray,
        ids: Sequence[str],
        *,
        cosine: bool = False,
        M: int = 16,
        ef_construction: int = 200,
        seed: int = HNSW_SEED,
        threads: int = 1,
        facts: dict | None = None,
    ) -> "HnswIndex":
        """Build and save the index, or open an earlier one that was built from the same facts in `folder`.

        Args:
            folder: receives index.bin and index.json.
            docs: (N, D) embeddings.
            ids: (N,) document ids, in the order of the rows.
            cosine: cosine instead of inner product.
            M: links a node; memory and recall grow with it (Malkov & Yashunin 2020).
            ef_construction: width of the search while building.
            seed: of the levels.
            threads: more than 1 is faster, and no two builds are then alike: not for reported numbers.
            facts: what else a search must agree with: model hash, prompt, normalisation, store key.
        """
        expected = {
            "space": "cosine" if cosine else "ip",
            "dim": docs.shape[1],
            "count": len(docs),
            "M": M,
            "ef_construction": ef_construction,
            "seed": seed,
            "threads": threads,
            "ids": hash_strings(ids),
            **(facts or {}),
        }
        if (folder / SIDECAR).exists():  # finished work needs no lock: it may lie on a disk that cannot be written
            return cls.load(folder, expected)
        with exclusive(folder):
            if (folder / SIDECAR).exists():
                return cls.load(folder, expected)
            require_space(folder, len(docs) * (docs.shape[1] * 4 + M * 8 + 16), f"an HNSW index of {len(docs):,} documents")
            start = time.perf_counter()
            graph = _graph(expected["space"], docs.shape[1])
            graph.init_index(max_elements=len(docs), M=M, ef_construction=ef_construction, random_seed=seed)
            with bar(len(docs), "build HNSW", "doc") as progress:
                for at in range(0, len(docs), ADD_CHUNK):
                    chunk = np.array(docs[at : at + ADD_CHUNK])
                    graph.add_items(chunk, np.arange(at, at + len(chunk)), num_threads=threads)
                    progress.update(len(chunk))
            temporary = folder / "index.bin.tmp"
            try:
                graph.save_index(str(temporary))
                size = temporary.stat().st_size if temporary.exists() else 0
                if size != graph.index_file_size():  # hnswlib does not look whether its writes succeed
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                sidecar = {
                    **expected,
                    "bytes": size,
                    "sha256": hash_file(temporary),
                    "build_seconds": round(time.perf_counter() - start, 3),
                }
                temporary.replace(folder / "index.bin")
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise disk_error(error, folder / "index.bin") from error
            write_json(folder / SIDECAR, sidecar)
        return cls(graph, sidecar)

    @classmethod
    def load(cls, folder: Path, expected: dict[str, object]) -> "HnswIndex":
        """Open an index if its sidecar agrees with `expected` in every value.

        hnswlib itself keeps no record of space, normalisation or ids and silently loads a cosine index as `ip`.

        Raises:
            UserError: missing, damaged, or built from something else (the differing values are listed).
        """
        sidecar = read_json(folder / SIDECAR)
        if not isinstance(sidecar, dict) or not {"bytes", "sha256", "build_seconds"} <= sidecar.keys():
            raise UserError(
                f"{folder / SIDECAR} is not one this tool wrote; expected an object with bytes, sha256 and "
                f"build_seconds. Delete {folder} to build it again."
            )
        wrong = [
            f"{name} is {sidecar.get(name)!r}, expected {value!r}"
            for name, value in expected.items()
            if sidecar.get(name) != value
        ]
        if wrong:
            raise UserError(
                f"index {folder} does not match: {'; '.join(wrong)}. Name the index of these embeddings, or "
                "delete the folder to build it again."
            )
        binary = folder / "index.bin"
        if not binary.exists() or binary.stat().st_size != sidecar["bytes"]:
            raise UserError(
                f"{binary} is missing or has another size than its sidecar says ({sidecar['bytes']} bytes); "
                f"delete {folder} to build it again."
            )
        if hash_file(binary) != sidecar["sha256"]:  # hnswlib would crash on some bytes and search others
            raise UserError(
                f"{binary} has other bytes than its sidecar says, expected sha256 {sidecar['sha256'][:12]}…; "
                f"delete {folder} to build it again."
            )
        graph = _graph(sidecar["space"], sidecar["dim"])
        graph.load_index(str(binary), max_elements=sidecar["count"])
        return cls(graph, sidecar)

    def search(self, queries: np.ndarray, top_k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the approximate top_k of each query: scores (Q, top_k), descending, and positions (Q, top_k).

        Raises:
            UserError: ef is below top_k (hnswlib would raise it silently), or the graph cannot give top_k results.
        """
        if ef < top_k:
            raise UserError(f"top_k={top_k} exceeds ef={ef}; pass --ef {top_k} or more.")
        check_dims(queries, np.empty((0, self.sidecar["dim"])))
        self.graph.set_ef(ef)  # not saved with the index: set at every search
        try:
            positions, distances = self.graph.knn_query(queries, k=top_k, num_threads=1)
        except RuntimeError as error:
            raise UserError(
                f"HNSW found fewer than top_k={top_k} documents ({error}); pass a larger --ef, or --index exact."
            ) from None
        return 1 - distances, positions.astype(np.int64)


def _graph(space: str, dim: int) -> "Index":
    """Make an empty hnswlib.Index. Imported here: hnswlib must be compiled, and exact search and training do not need it."""
    import hnswlib

    return hnswlib.Index(space=space, dim=dim)
