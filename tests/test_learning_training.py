"""Local training against a plain PyTorch loop, and evaluation."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise.errors import ComputeError, DataError
from joulewise.learning import (
    CNN,
    IID,
    MLP,
    Digits,
    Evaluation,
    Examples,
    ResNet18,
    Training,
    arrays,
    build,
    evaluate,
    load,
    train,
    use_threads,
)

DIGITS = (1, 8, 8, 10)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@pytest.fixture(scope="module")
def digits():
    return load(Digits(clients=10, partition=IID()))


def first(examples, count):
    return examples.take(np.arange(count))


def copied(module):
    return {name: array.copy() for name, array in arrays(module).items()}


def same_bits(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def plain_loop(module, examples, training, rng, proximal_mu=0.0):
    """Train as a user of PyTorch would write it; the proximal term is part of the loss."""
    images, labels = torch.tensor(examples.images), torch.tensor(examples.labels)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    received = [parameter.detach().clone() for parameter in module.parameters()]
    module.train()
    total = 0.0
    for _ in range(training.local_epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(labels), training.batch_size):
            batch = order[start : start + training.batch_size]
            loss = torch.nn.functional.cross_entropy(module(images[batch]), labels[batch])
            total += loss.item() * len(batch)
            for parameter, origin in zip(module.parameters(), received, strict=True):
                loss = loss + proximal_mu / 2 * (parameter - origin).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return total / len(labels) / training.local_epochs


@pytest.mark.parametrize(
    ("model", "training"),
    [
        (MLP(), Training()),
        (MLP(), Training(local_epochs=3, batch_size=7, momentum=0.9, weight_decay=1e-3, learning_rate=0.01)),
        (MLP(), Training(batch_size=1000)),
        (CNN(), Training(batch_size=16)),
        (ResNet18(), Training(batch_size=20, learning_rate=0.01)),
    ],
    ids=repr,
)
def test_training_has_the_bits_of_a_plain_loop(digits, model, training):
    examples = first(digits.train, 50)
    ours, plain = (build(model, *DIGITS, seed=0) for _ in range(2))
    loss = train(ours, examples, training, np.random.default_rng(1))
    expected = plain_loop(plain, examples, training, np.random.default_rng(1))
    assert same_bits(copied(ours), copied(plain))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_close_and_leaves_parameters_in_float32(digits):
    examples = first(digits.train, 200)
    exact, half = (build(CNN(), *DIGITS, seed=0) for _ in range(2))
    losses = [
        train(module, examples, Training(precision=precision), np.random.default_rng(1))
        for module, precision in ((exact, "float32"), (half, "bfloat16"))
    ]
    assert {array.dtype for array in arrays(half).values()} == {np.dtype(np.float32)}
    assert not same_bits(copied(exact), copied(half))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    for name, array in arrays(half).items():
        np.testing.assert_allclose(array, arrays(exact)[name], atol=0.02)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    epochs=st.integers(1, 2),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_no_example_is_left_out_whatever_the_batch_size(count, batch_size, epochs, seed):
    examples = first(load(Digits(1, IID())).train, count)
    training = Training(local_epochs=epochs, batch_size=batch_size)
    ours, plain = (build(MLP(hidden=(4,)), *DIGITS, seed=0) for _ in range(2))
    train(ours, examples, training, np.random.default_rng(seed))
    plain_loop(plain, examples, training, np.random.default_rng(seed))
    assert same_bits(copied(ours), copied(plain))


def test_the_generator_alone_decides_the_order(digits):
    examples = first(digits.train, 60)
    results = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        module = build(CNN(), *DIGITS, seed=0)
        torch.default_generator.manual_seed(global_seed)
        train(module, examples, Training(), np.random.default_rng(seed))
        results.append(copied(module))
    assert same_bits(results[0], results[1])
    assert not same_bits(results[0], results[2])


def test_training_leaves_the_global_random_state_alone(digits):
    before = torch.get_rng_state()
    train(build(CNN(), *DIGITS, seed=0), first(digits.train, 10), Training(), np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_proximal_term_is_that_of_fedprox(digits):
    examples, training = first(digits.train, 64), Training(local_epochs=3, momentum=0.5)
    ours, plain, free = (build(MLP(), *DIGITS, seed=0) for _ in range(3))
    start = copied(ours)
    loss = train(ours, examples, training, np.random.default_rng(0), proximal_mu=0.7)
    expected = plain_loop(plain, examples, training, np.random.default_rng(0), proximal_mu=0.7)
    train(free, examples, training, np.random.default_rng(0))
    for name, array in arrays(ours).items():
        np.testing.assert_allclose(array, copied(plain)[name], rtol=1e-4, atol=1e-6)
        assert np.linalg.norm(array - start[name]) < np.linalg.norm(arrays(free)[name] - start[name])
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_of_one_does_not_trip_batch_norm(digits, count):
    module = build(ResNet18(), *DIGITS, seed=0)
    before = copied(module)
    training = Training(batch_size=4, learning_rate=0.01)
    loss = train(module, first(digits.train, count), training, np.random.default_rng(0))
    after = copied(module)
    assert np.isfinite(loss)
    assert all(np.isfinite(array).all() for array in after.values())
    assert not np.array_equal(before["output.weight"], after["output.weight"])
    # Only a batch with a variance counts among the running statistics.
    assert after["bn1.num_batches_tracked"] == (0 if count == 1 else 1)


def test_batch_norm_learns_statistics_again_after_a_batch_of_one(digits):
    module = build(ResNet18(), *DIGITS, seed=0)
    training = Training(learning_rate=0.01)
    train(module, first(digits.train, 1), training, np.random.default_rng(0))
    train(module, first(digits.train, 2), training, np.random.default_rng(0))
    assert arrays(module)["bn1.num_batches_tracked"] == 1


def test_a_small_network_learns_the_digits(digits):
    module = build(MLP(), *DIGITS, seed=0)
    before = evaluate(module, digits.test)
    loss = train(module, digits.train, Training(local_epochs=20), np.random.default_rng(0))
    after = evaluate(module, digits.test)
    assert before.accuracy < 0.3
    assert after.accuracy > 0.9
    assert after.loss < loss < before.loss


@given(batch_size=st.integers(1, 400))
@settings(max_examples=15, deadline=None)
def test_evaluation_does_not_depend_on_the_batch_size(batch_size):
    examples = first(load(Digits(1, IID())).test, 90)
    module = build(MLP(), *DIGITS, seed=0)
    whole, parts = evaluate(module, examples), evaluate(module, examples, batch_size=batch_size)
    assert (parts.accuracy, parts.examples) == (whole.accuracy, 90)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_evaluation_counts_right_answers_and_takes_the_mean_loss():
    module = torch.nn.Flatten()
    images = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], dtype=np.float32))[:, None, None]
    measured = evaluate(module, Examples(images, np.array([0, 2])))
    assert (measured.accuracy, measured.examples) == (0.5, 2)
    assert measured.loss == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-6)


@pytest.mark.parametrize("training_mode", [True, False])
def test_evaluation_changes_nothing(digits, training_mode):
    module = build(ResNet18(), *DIGITS, seed=0).train(training_mode)
    before = copied(module)
    assert isinstance(evaluate(module, first(digits.test, 20)), Evaluation)
    assert same_bits(before, copied(module))
    assert module.training == training_mode


def test_examples_that_may_only_be_read_train_without_a_warning(digits):
    examples = first(digits.train, 8)
    examples.images.flags.writeable = False
    examples.labels.flags.writeable = False
    module = build(MLP(), *DIGITS, seed=0)
    train(module, examples, Training(), np.random.default_rng(0))
    evaluate(module, examples)


def test_a_gpu_that_is_not_there_is_one_sentence(digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    module = build(MLP(), *DIGITS, seed=0)
    with pytest.raises(ComputeError, match=r"--compute cuda needs a CUDA GPU .* use --compute cpu"):
        train(module, digits.train, Training(), np.random.default_rng(0), compute="cuda")
    with pytest.raises(ComputeError, match="--compute tpu is unknown; use cpu or cuda"):
        evaluate(module, digits.test, compute="tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_learns_what_a_cpu_learns(digits):
    on_cpu, on_gpu = (build(MLP(), *DIGITS, seed=0) for _ in range(2))
    train(on_cpu, digits.train, Training(), np.random.default_rng(0))
    train(on_gpu, digits.train, Training(), np.random.default_rng(0), compute="cuda")
    for name, array in arrays(on_gpu).items():
        np.testing.assert_allclose(array, arrays(on_cpu)[name], rtol=1e-2, atol=1e-4)
    assert evaluate(on_gpu, digits.test, "cuda").accuracy == pytest.approx(
        evaluate(on_cpu, digits.test).accuracy, abs=0.02
    )


def test_training_without_examples_is_refused():
    nothing = Examples(np.zeros((0, 1, 8, 8), np.float32), np.zeros(0, np.int64))
    module = build(MLP(), *DIGITS, seed=0)
    with pytest.raises(DataError, match="examples is empty"):
        train(module, nothing, Training(), np.random.default_rng(0))
    with pytest.raises(DataError, match="examples is empty"):
        evaluate(module, nothing)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("local_epochs", 0),
        ("batch_size", 0),
        ("threads", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", float("nan")),
        ("weight_decay", -1e-9),
        ("weight_decay", float("inf")),
        ("learning_rates", 0.1),
    ],
)
def test_a_setting_out_of_range_is_refused(field, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: value}, Training)


def test_settings_that_are_left_out_have_their_defaults():
    assert msgspec.convert({"learning_rate": 1}, Training) == Training(learning_rate=1.0)
    assert Training() == Training(1, 32, 0.1, 0.0, 0.0, 1)


def test_the_number_of_threads_is_what_was_asked_for():
    before = torch.get_num_threads()
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        use_threads(before)
