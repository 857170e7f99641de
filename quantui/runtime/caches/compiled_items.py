"""What vLLM, torch.compile, Triton and FlashInfer compiled and keep, uv's cache of packages and Xet's of chunks.

vLLM 0.32: graphs below ``torch_compile_cache`` (compilation/backends.py), a folder for each hash of model,
configuration and code; those compiled ahead of time below ``torch_aot_compile`` in it (compilation/decorators.py);
facts of model classes in ``modelinfos`` (model_executor/models/registry.py), and smaller things beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind, Rebuild
from quantui.runtime.caches.roots import compiled_places, package_roots, xet_roots
from quantui.runtime.caches.tree_items import Found, entries_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_GRAPHS = "torch_compile_cache"
_AHEAD = "torch_aot_compile"

_VLLM = {
    "modelinfos": "what vLLM knows of its model classes",
    "xla_cache": "graphs for TPUs",
    "deep_gemm": "DeepGEMM's kernels",
    "flashinfer_autotune_cache": "FlashInfer's measured choices of kernels",
    "startup_plan": "what vLLM measured of its memory at a start",
    "assets": "images, sounds and videos that vLLM fetched",
    "rocm_segmented_attention": "kernels for AMD's GPUs",
}
_TITLES = {
    "triton": "kernels that Triton compiled",
    "inductor": "kernels and graphs that torch.compile made",
    "extensions": "C++ extensions that torch compiled",
    "flashinfer": "kernels that FlashInfer compiled",
}
_NAMES = {
    "triton": "triton",
    "inductor": "torch inductor",
    "extensions": "torch extensions",
    "flashinfer": "flashinfer",
}
_AGAIN = Rebuild("vLLM compiles again at the next start, up to some minutes")
_KEEP_PACKAGES = (
    "it is uv's own: `uv cache prune` frees what nothing needs any more, `uv cache clean` all of it"
)
_KEEP_CHUNKS = (
    "huggingface_hub has no call that empties it, and the Hub's caches change through huggingface_hub alone: "
    "delete the folder yourself while nothing is downloaded"
)


def compiled_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """vLLM's graphs one by one, its other folders, and the caches of the compilers whole."""
    for place, root in compiled_places():
        if stop():
            return
        if place == "vllm":
            yield from _of_vllm(root, stop)
        else:
            yield from tree_item(
                Kind.COMPILED,
                root,
                root.parent,
                name=_NAMES[place],
                detail=_TITLES[place],
                rebuild=_AGAIN,
                stop=stop,
            )


def package_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """uv's cache, which engines share files with: uv alone knows what of it may go. And the chunks of Xet."""
    for root in xet_roots():
        yield from tree_item(
            Kind.PACKAGES,
            root,
            root,
            name="Xet's chunks",
            detail="parts of files of the Hub, kept for the next download",
            rebuild=Rebuild("they are downloaded again when a file has them"),
            keep=_KEEP_CHUNKS,
            stop=stop,
        )
    for root in package_roots():
        yield from tree_item(
            Kind.PACKAGES,
            root,
            root,
            name="uv's packages",
            detail="wheels that uv keeps for the next installation",
            rebuild=Rebuild("packages are downloaded again when an engine is installed"),
            keep=_KEEP_PACKAGES,
            stop=stop,
        )


def _of_vllm(root: Path, stop: Callable[[], bool]) -> Iterator[Found]:
    folders, files, problems = entries_in(root)
    yield from problems
    for path in (*folders, *files):
        if stop():
            return
        if path.name == _GRAPHS:
            yield from _graphs(path, root, stop)
        else:
            detail = _VLLM.get(path.name, "what vLLM keeps")
            if path.name.startswith("gpu_p2p_access_cache"):
                detail = "which GPUs reach one another"
            yield from tree_item(
                Kind.COMPILED,
                path,
                root,
                name=f"vllm/{path.name}",
                detail=detail,
                rebuild=_AGAIN,
                stop=stop,
            )


def _graphs(folder: Path, root: Path, stop: Callable[[], bool]) -> Iterator[Found]:
    """Each graph by its hash; which model it is of is in the hash alone."""
    folders, _, problems = entries_in(folder)
    yield from problems
    for path in folders:
        if path.name == _AHEAD:
            graphs, _, more = entries_in(path)
            yield from more
        else:
            graphs = [path]
        for graph in graphs:
            if stop():
                return
            ahead = " ahead of time" if graph.parent.name == _AHEAD else ""
            yield from tree_item(
                Kind.COMPILED,
                graph,
                root,
                name=f"vllm graph {graph.name[:12]}",
                detail=f"a model's graphs, compiled{ahead} by vLLM",
                rebuild=_AGAIN,
                stop=stop,
            )
