"""The native library against the plain engine in double precision, and what it promises."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rllib_cikd.engine import library as engine_library
from rllib_cikd.engine import native, native_elementwise
from rllib_cikd.engine.perceptrons import StackedPerceptrons

pytestmark = pytest.mark.skipif(
    not native.computes(torch.zeros(1)), reason=f"without the library: {engine_library.describe()}"
)

SIMD = ("avx512", "avx2", "baseline")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def simd() -> Iterator[Callable[[str], bool]]:
    """Changes the library's kernels; tells whether this processor has those."""
    library = engine_library.loaded()
    name = engine_library.load()[1]

    def choose(kind: str) -> bool:
        return library.engine_choose(SIMD.index(kind)) is not None

    yield choose
    for place in range(3):
        if library.engine_choose(place) == name.encode():
            break


def stack(
    networks: int,
    widths: list[int],
    activation: str = "relu",
    trainable: bool = True,
    normalized: bool = False,
) -> StackedPerceptrons:
    weights = [torch.randn(networks, a, b) / a**0.5 for a, b in itertools.pairwise(widths)]
    biases = [torch.randn(networks, 1, b) for b in widths[1:]]
    return StackedPerceptrons(
        weights, biases, activation, trainable, "layer" if normalized else "none"
    )


def in_float64(perceptrons: StackedPerceptrons) -> StackedPerceptrons:
    """The same ones, which the plain engine computes."""
    return StackedPerceptrons(
        [w.double() for w in perceptrons.weights],
        [b.double() for b in perceptrons.biases],
        perceptrons.activation,
        trainable=True,
        norm=perceptrons.norm,
    )


def results(
    perceptrons: StackedPerceptrons, x: Tensor, grad: Tensor, frozen: bool = False
) -> list[Tensor]:
    """Outputs with and without gradient, and gradients of inputs and parameters."""
    with torch.no_grad():
        alone = perceptrons(x)
    x = x.detach().requires_grad_()
    wanted = [x] if frozen else [x, perceptrons.parameters]
    y = perceptrons(x, frozen)
    return [alone, y.detach(), *torch.autograd.grad(y, wanted, grad)]


def some_shape(rng: random.Random) -> tuple[int, list[int], int]:
    """Networks, widths and rows: small ones and ones that are no multiple of anything."""

    def up_to(limit: int) -> int:
        return min(limit, round(limit ** rng.uniform(0.0, 1.02)))

    while True:
        shape = up_to(5), [up_to(513) for _ in range(rng.randint(2, 5))], up_to(300)
        networks, widths, rows = shape
        if networks * rows * sum(a * b for a, b in itertools.pairwise(widths)) < 1e6:
            return shape


# ---------------------------------------------------------------- values and gradients


def test_2000_random_shapes_agree_with_double_precision(threads):
    rng = random.Random(0)
    seen = set()
    for _ in range(2000):
        networks, widths, rows = some_shape(rng)
        activation, frozen = rng.choice(["relu", "tanh", "elu"]), rng.random() < 0.4
        # The deviation of a few units may be next to nothing, and rounding next to all.
        normalized = rng.random() < 0.3 and min(widths[1:-1], default=0) >= 8
        perceptrons = stack(networks, widths, activation, normalized=normalized)
        seen.add("normalized" if normalized else activation)
        x, grad = torch.randn(networks, rows, widths[0]), torch.randn(networks, rows, widths[-1])
        if rng.random() < 0.5:
            grad *= torch.rand(networks, rows, 1) < 0.5
        seen.update(widths)
        threads(2)
        actual = results(perceptrons, x, grad, frozen)
        threads(1)  # PyTorch's own threads wait for each other on a busy machine
        expected = results(in_float64(perceptrons), x.double(), grad.double(), frozen)
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == torch.float32
            scale = max(0.1, float(e.abs().max()))
            error = float((a.double() - e).abs().max()) / scale
            what = (networks, widths, rows, activation, normalized, frozen, error)
            assert error < 2e-5, what
    assert {1, 2, 3, 513, "normalized"} <= seen


@pytest.mark.parametrize("kind", SIMD)
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalized"])
@pytest.mark.parametrize("rows", [5, 32, 49, 1100])
def test_every_kind_of_kernel(kind, activation, normalized, rows, simd):
    if not simd(kind):
        pytest.skip("not on this processor")
    perceptrons = stack(3, [23, 70, 65, 3], activation, normalized=normalized)
    x, grad = torch.randn(3, rows, 23), torch.randn(3, rows, 3)
    actual = results(perceptrons, x, grad)
    expected = results(in_float64(perceptrons), x.double(), grad.double())
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-5 * float(e.abs().max()))


@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_activations_over_their_whole_range(activation):
    """The library has its own exponential function."""
    perceptrons = StackedPerceptrons(
        [torch.ones(1, 1, 1)] * 2, [torch.zeros(1, 1, 1)] * 2, activation
    )
    small = torch.logspace(-30, 2, 20_000)
    x = torch.cat([small, -small, torch.linspace(-30, 30, 20_001)]).view(1, -1, 1)
    expected = getattr(torch.nn.functional, activation)(x.double())
    torch.testing.assert_close(perceptrons(x).double(), expected, rtol=5e-7, atol=0)


def test_inputs_may_lie_anywhere():
    """Slices of wider rows, expanded and transposed ones."""
    perceptrons = stack(3, [4, 8, 2])
    wide = torch.randn(3, 50, 11)
    for x in (
        wide[..., 2:6],
        wide[:1, :, 2:6].expand(3, -1, -1),
        wide[:, :1, 2:6].expand(-1, 50, -1),
        torch.randn(4, 50, 3).permute(2, 1, 0),
        wide[:, ::2, 1:5],
    ):
        assert not x.is_contiguous()
        assert torch.equal(perceptrons(x), perceptrons(x.contiguous()))


def test_a_gradient_that_is_expanded():
    perceptrons = stack(2, [4, 8, 2])
    x = torch.randn(2, 9, 4, requires_grad=True)
    (by_sum,) = torch.autograd.grad(perceptrons(x).sum(), x)
    (by_ones,) = torch.autograd.grad(perceptrons(x), x, torch.ones(2, 9, 2))
    assert torch.equal(by_sum, by_ones)


def test_memory_of_a_pass_is_used_again_but_not_before_its_end():
    perceptrons = stack(2, [4, 8, 2])
    x = torch.randn(5, 2, 9, 4)
    expected = [results(perceptrons, part, torch.ones(2, 9, 2))[2] for part in x]
    inputs = [part.clone().requires_grad_() for part in x]
    outputs = [perceptrons(part) for part in inputs]  # five passes are kept at once
    for y, part, wanted in zip(outputs, inputs, expected, strict=True):
        for _ in range(2):
            (grad,) = torch.autograd.grad(y, part, torch.ones(2, 9, 2), retain_graph=True)
            assert torch.equal(grad, wanted)


# ---------------------------------------------------------------- the same bits


def test_bits_depend_on_neither_threads_nor_vectors(threads, simd):
    rng = random.Random(1)
    # One of SAC's size, and one whose rows are summed in several blocks.
    shapes = [(3, [17, 256, 256, 12], 256), (1, [9, 40, 40, 3], 1100)]
    shapes += [some_shape(rng) for _ in range(150)]
    for i, (networks, widths, rows) in enumerate(shapes):
        activation, normalized = rng.choice(["relu", "tanh", "elu"]), i % 3 == 1
        perceptrons = stack(networks, widths, activation, normalized=normalized)
        x, grad = torch.randn(networks, rows, widths[0]), torch.randn(networks, rows, widths[-1])
        grad[:, ::3] = 0.0
        variants = {}
        for kind in ("avx512", "avx2"):
            for count in (1, 2, 3):
                threads(count)
                if simd(kind):
                    variants[kind, count] = [
                        *results(perceptrons, x, grad),
                        *results(perceptrons, x, grad, frozen=True),
                    ]
        first, *others = variants.values()
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True)), (
                variants.keys()
            )


@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalized"])
def test_a_row_s_result_does_not_depend_on_the_others(threads, normalized):
    """Few rows take a way of their own through the library."""
    threads(2)
    perceptrons = stack(2, [17, 64, 64, 5], normalized=normalized)
    x = torch.randn(2, 300, 17)
    y = perceptrons(x).detach()
    for rows in (1, 2, 7, 12, 13, 33):
        assert torch.equal(perceptrons(x[:, :rows]), y[:, :rows])
        with torch.no_grad():
            assert torch.equal(perceptrons(x[:, :rows]), y[:, :rows])


def test_pytorch_takes_one_thread_while_the_library_has_them_all(threads, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(
        engine_library,
        "load",
        lambda: (types.SimpleNamespace(engine_follow=lambda *args: told.append(args[-1])), ""),
    )
    target, source = torch.zeros(2, 3)
    threads(2)
    with engine_library.all_threads():
        native_elementwise.follow(target, source, 0.5)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    native_elementwise.follow(target, source, 0.5)
    threads(1)
    with engine_library.all_threads():
        native_elementwise.follow(target, source, 0.5)
    assert told == [2, 2, 1]
    monkeypatch.setattr(engine_library, "load", lambda: (None, "it was not built"))
    threads(2)
    with engine_library.all_threads():
        assert torch.get_num_threads() == 2, "the plain engine uses PyTorch's threads"


# ---------------------------------------------------------------- what is not a number


@pytest.mark.parametrize("kind", SIMD)
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalized"])
def test_not_a_number_comes_out_as_such(kind, activation, normalized, simd):
    """A run whose losses are not finite is stopped: ReLU and zero rows must not hide them."""
    if not simd(kind):
        pytest.skip("not on this processor")
    perceptrons = stack(2, [6, 20, 20, 3], activation, normalized=normalized)
    x, grad = torch.randn(2, 40, 6), torch.randn(2, 40, 3)
    x[1, 3, 2] = float("nan")
    grad[:, 5:] = 0.0
    grad[0, 33, 1] = float("nan")
    for frozen in (False, True):
        actual = results(perceptrons, x, grad, frozen)
        expected = results(in_float64(perceptrons), x.double(), grad.double(), frozen)
        alone, y, grad_x = actual[:3]
        assert y[1, 3].isnan().all()
        assert torch.equal(alone.isnan(), y.isnan())
        assert int(y.isnan().sum()) == 3
        assert grad_x[0, 33].isnan().all()
        assert torch.equal(grad_x.isnan(), expected[2].isnan())
        if not frozen:
            assert torch.equal(actual[3].isnan(), expected[3].isnan())


def test_infinity_stays():
    perceptrons = stack(1, [3, 30, 30, 2])
    for rows in (1, 40):
        x = torch.full((1, rows, 3), float("inf"))
        expected = in_float64(perceptrons)(x.double())
        assert torch.equal(perceptrons(x).isnan(), expected.isnan())
        assert not perceptrons(x).isfinite().any()


def test_subnormal_numbers_are_others_to_keep():
    """The library takes them as 0, and leaves the processor as it was for everyone else."""
    stack(1, [3, 30, 2])(torch.randn(1, 40, 3))
    assert float(torch.tensor([1e-40]) * torch.tensor([0.5])) > 0.0


# ---------------------------------------------------------------- bad arguments


def _forward_arguments() -> tuple[native.Shape, Tensor, Tensor]:
    shape = native.Shape(2, [4, 8, 3], "relu")
    return shape, torch.zeros(shape.parameters), torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [4, 3], "relu"), "0 perceptrons"),
        ((1, [4], "relu"), r"widths \[4\]"),
        ((1, [4, 0, 3], "relu"), "at least one unit"),
        ((1, [2] * 66, "relu"), "1 to 64 layers"),
        ((1, [4, 3], "gelu"), "activation 'gelu' must be one of"),
    ],
)
def test_bad_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        native.Shape(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, x: (p[1:], x), r"parameters has shape \[133\], expected \[134\]"),
        (lambda p, x: (p.double(), x), r"parameters is torch.float64 on cpu, expected"),
        (lambda p, x: (torch.zeros(268)[::2], x), r"parameters is not contiguous"),
        (lambda p, x: (p.to("meta"), x), r"parameters is torch.float32 on meta, expected"),
        (lambda p, x: (p, torch.zeros(3, 5, 4)), "2 perceptrons cannot share 3 inputs"),
        (lambda p, x: (p, x[0]), r"x has shape \[5, 4\], expected \[m, B, in\]"),
        (lambda p, x: (p, x[:, :0]), r"x has shape \[2, 0, 4\], expected \[m, B, in\]"),
        (lambda p, x: (p, x[:0]), r"x has shape \[0, 5, 4\], expected \[m, B, in\]"),
        (lambda p, x: (p, x[..., 1:]), r"x has shape \[2, 5, 3\], expected \[2, 5, 4\]"),
        (lambda p, x: (p, x.half()), r"x is torch.float16 on cpu, expected torch.float32 on cpu"),
    ],
)
def test_bad_arguments_of_a_forward_pass(change, message):
    shape, parameters, x = _forward_arguments()
    with pytest.raises(ValueError, match=message):
        native.forward(shape, *change(parameters, x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, g: (p[1:], g), r"parameters has shape \[133\], expected \[134\]"),
        (lambda p, g: (p, g[:, 1:]), r"gradient of y has shape \[2, 4, 3\], expected \[2, 5, 3\]"),
        (lambda p, g: (p, g.double()), r"gradient of y is torch.float64"),
    ],
)
def test_bad_arguments_of_a_backward_pass(change, message):
    shape, parameters, x = _forward_arguments()
    _, kept = native.forward(shape, parameters, x, native.FOR_PARAMETERS)
    with pytest.raises(ValueError, match=message):
        native.backward(kept, *change(parameters, torch.zeros(2, 5, 3)), True, True)


def test_a_backward_pass_that_needs_more_than_was_kept():
    shape, parameters, x = _forward_arguments()
    _, kept = native.forward(shape, parameters, x, native.FOR_INPUTS)
    with pytest.raises(ValueError, match="kept nothing for the parameters' gradient"):
        native.backward(kept, parameters, torch.zeros(2, 5, 3), False, True)


@pytest.mark.parametrize("place", range(4))
def test_bad_arguments_of_adam(place):
    tensors = [torch.zeros(10) for _ in range(4)]
    tensors[place] = torch.zeros(9) if place else torch.zeros(20)[::2]
    with pytest.raises(ValueError, match="has shape" if place else "not contiguous"):
        native_elementwise.adam(*tensors, 1, 1e-3, (0.9, 0.999), 1e-8)
    with pytest.raises(ValueError, match="counted from 1"):
        native_elementwise.adam(*[torch.zeros(10)] * 4, 0, 1e-3, (0.9, 0.999), 1e-8)


def test_bad_arguments_of_follow():
    with pytest.raises(ValueError, match=r"the source has shape \[9\], expected \[10\]"):
        native_elementwise.follow(torch.zeros(10), torch.zeros(9), 0.5)
    with pytest.raises(ValueError, match="the target is not contiguous"):
        native_elementwise.follow(torch.zeros(20)[::2], torch.zeros(10), 0.5)


def test_more_layers_than_the_library_knows_are_computed_plainly():
    perceptrons = stack(1, [2] * 70)
    y = perceptrons(torch.randn(1, 3, 2))
    assert type(y.grad_fn).__name__ != "_NativeBackward"


# ---------------------------------------------------------------- threads


@pytest.fixture
def work() -> Callable[[], list[bytes]]:
    """Something worth two threads, and its results; with the library's threads alone."""
    perceptrons = stack(3, [17, 128, 128, 4])
    x, grad = torch.randn(3, 256, 17), torch.randn(3, 256, 4)
    return lambda: [result.numpy().tobytes() for result in results(perceptrons, x, grad)]


def test_callers_at_the_same_time(work, threads):
    """Several learners in one process; threads are one caller's at a time."""
    expected = work()
    outcomes = []

    def call() -> None:
        torch.set_num_threads(2)
        for _ in range(30):
            outcomes.append(work() == expected)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert outcomes == [True] * 120


def _child(queue: multiprocessing.Queue, work: Callable[[], list[bytes]], expected: list) -> None:
    queue.put([work() == expected for _ in range(3)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(work, threads):
    threads(2)
    expected = work()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_child, args=(queue, work, expected)) for _ in range(3)]
    for child in children:
        child.start()
    try:
        assert [queue.get(timeout=60) for _ in children] == [[True] * 3] * 3
    finally:
        for child in children:
            child.join(10)
            child.kill()
    assert work() == expected


def test_idle_threads_sleep(work, threads):
    threads(2)
    work()
    time.sleep(0.05)  # they spin for a moment
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


# ---------------------------------------------------------------- which engine


@pytest.mark.parametrize("kind", SIMD)
def test_kernels_are_chosen_by_an_environment_variable(kind, simd, monkeypatch):
    if not simd(kind):
        pytest.skip("not on this processor")
    monkeypatch.setenv("RLLIB_CIKD_SIMD", kind)
    library, name = engine_library.load.__wrapped__()
    assert library is not None
    assert name in {"avx512": {"AVX-512"}, "avx2": {"AVX2"}, "baseline": {"baseline", "NEON"}}[kind]


def test_the_plain_engine_is_chosen_by_an_environment_variable(monkeypatch):
    monkeypatch.setenv("RLLIB_CIKD_ENGINE", "plain")
    monkeypatch.setattr(engine_library, "load", engine_library.load.__wrapped__)
    assert not native.computes(torch.zeros(1))
    assert "plain PyTorch" in engine_library.describe()
    assert "RLLIB_CIKD_ENGINE=plain is set" in engine_library.describe()


@pytest.mark.parametrize(
    ("variable", "choices"),
    [("RLLIB_CIKD_ENGINE", "auto, native, plain"), ("RLLIB_CIKD_SIMD", "avx512, avx2, baseline")],
)
def test_a_choice_that_is_none(variable, choices, monkeypatch):
    monkeypatch.setenv(variable, "fast")
    with pytest.raises(ValueError, match=f"{variable}=fast must be one of: {choices}"):
        engine_library.load.__wrapped__()


def test_without_a_library(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_library, "__file__", str(tmp_path / "library.py"))
    monkeypatch.setattr(engine_library, "load", engine_library.load.__wrapped__)
    assert not native.computes(torch.zeros(1))
    assert "plain PyTorch" in engine_library.describe()
    assert "install a C++ compiler" in engine_library.describe()
    perceptrons = stack(2, [3, 8, 2])
    assert type(perceptrons(torch.randn(2, 4, 3)).grad_fn).__name__ != "_NativeBackward"
    monkeypatch.setenv("RLLIB_CIKD_ENGINE", "native")
    with pytest.raises(RuntimeError, match=r"=native is set, but .* install a C\+\+ compiler"):
        native.computes(torch.zeros(1))


def test_a_file_that_is_no_library(monkeypatch, tmp_path):
    Path(tmp_path / "libengine.so").write_text("not a library")
    monkeypatch.setattr(engine_library, "__file__", str(tmp_path / "library.py"))
    library, words = engine_library.load.__wrapped__()
    assert library is None
    assert "cannot be used" in words


def test_a_library_of_another_version(monkeypatch):
    """As after an update of an editable installation: it is not called in a way unknown to it."""
    if not native.computes(torch.zeros(1)):
        pytest.skip(engine_library.describe())
    monkeypatch.setattr(engine_library, "_INTERFACE", engine_library._INTERFACE + 1)
    library, words = engine_library.load.__wrapped__()
    assert library is None
    assert "it was built from other sources" in words
    assert "install a C++ compiler (g++ or clang++) and then rllib-cikd again" in words


def test_the_native_engine_computes_what_it_should():
    """Types and devices that it does not know go the plain way."""
    assert not native.computes(torch.zeros(1, dtype=torch.float64))
    assert not native.computes(torch.zeros(1, device="meta"))
    y = stack(1, [2, 4, 1])(torch.randn(1, 3, 2))
    assert type(y.grad_fn).__name__ == "_NativeBackward"
