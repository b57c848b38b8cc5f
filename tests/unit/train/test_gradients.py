"""Gradients in buckets, summed over ranks; each rank's share of them, and of the optimizer's state."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from assay.train import gradients as module
from assay.train.gradients import Gradients
from assay.train.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, world_size=1, local_rank=0, device=CPU)
RANKS = [World(rank=rank, world_size=3, local_rank=rank, device=CPU) for rank in range(3)]
SIZES = {"low": (3, 50), "table": (7, 3), "bias": (2,), "high": (100,)}
"""Shapes of parameters, lowest first."""


def named(*sizes):
    """Parameters of ones, by name."""
    return {str(number): nn.Parameter(torch.ones(size)) for number, size in enumerate(sizes)}


def buckets(gradients):
    """The flat gradients, in the order of their sums."""
    return [bucket.gradients for bucket in gradients._shared]


@pytest.fixture
def tiny_buckets(monkeypatch):
    """One for each parameter."""
    monkeypatch.setattr(module, "BUCKET_BYTES", (1, 1))


@pytest.fixture
def collectives(monkeypatch):
    """What was summed, gathered and waited for, in order; sums double the own share, gathering does nothing."""
    done = []

    class Work:
        def wait(self):
            done.append("waited")

    def gather(whole, own, **_):
        done.append(("gather", whole.data_ptr(), own.data_ptr()))
        return Work()

    def scatter(own, whole, **_):
        done.append(("sum", whole.data_ptr()))
        own.mul_(2)

    monkeypatch.setattr(module, "_reduce_scatter", scatter)
    monkeypatch.setattr(module, "_all_gather", gather)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(2))
    return done


def test_gradients_lie_in_few_buckets_later_parameters_first(monkeypatch):
    """Each parameter's gradient is a view that begins where kernels like it; a bucket is full beyond its size."""
    monkeypatch.setattr(module, "BUCKET_BYTES", (40, 40))
    parameters = named(4, 5, 6, 7)
    gradients = Gradients(parameters, world=ALONE)
    sum((number + 1) * each.sum() for number, each in enumerate(parameters.values())).backward()
    found = [[row[row > 0].tolist() for row in bucket.view(-1, 64)] for bucket in buckets(gradients)]
    assert found == [[[4.0] * 7, [3.0] * 6], [[2.0] * 5, [1.0] * 4]]
    assert all(gradients.own(each) is each for each in parameters.values())


def test_buckets_get_smaller(monkeypatch):
    """Half of what is left each, within bounds: little is left to sum when the last gradient is there."""
    monkeypatch.setattr(module, "BUCKET_BYTES", (16, 128))
    gradients = Gradients(named(*[1] * 100), world=ALONE)
    assert [len(bucket.members) for bucket in gradients._shared] == [32, 32, 18, 9, 5, 4]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0)])
def test_ranks_sum_the_same_buckets_together(order, collectives, tiny_buckets):
    """In the order of the buckets, whatever gradient comes first on a rank or never; after the last pass alone."""
    parameters = list(named(2, 2, 2).values())
    gradients = Gradients(dict(enumerate(parameters)), world=RANKS[0])
    for is_last in (False, True, True):
        collectives.clear()
        gradients.begin_pass(is_last=is_last)
        for number in order:
            parameters[number].sum().backward()
        gradients.finish_pass()
        expected = [("sum", bucket.data_ptr()) for bucket in buckets(gradients)] if is_last else []
        assert collectives == expected


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([1, 3], [0, 2, 2, 6, 4, 5, 6]),
        ([1, 2, 3, 6], [0, 2, 4, 6, 8, 10, 12]),
        (None, [0, 2, 4, 6, 8, 10, 12]),
    ],
)
def test_ranks_sum_the_rows_of_tokens_that_any_of_them_has(token_ids, expected, collectives):
    """The table of tokens is in no pass's sum; afterwards its rows of a step are, or most of them and so all."""
    others, table = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(7, 3))
    gradients = Gradients({"table": table, "others": others}, world=RANKS[0], table=table)
    gradients.begin_pass(is_last=True)
    (others.sum() + (table * torch.arange(7.0)[:, None]).sum()).backward()
    gradients.finish_pass()
    assert collectives == [("sum", buckets(gradients)[0].data_ptr())]
    assert others.grad.tolist() == [2.0, 2.0]
    assert table.grad[:, 0].tolist() == list(range(7))
    gradients.sum_table(None if token_ids is None else torch.tensor(token_ids))
    assert table.grad.tolist() == [[value] * 3 for value in expected]


def make_ranks(bucket_bytes, monkeypatch):
    """For each of three ranks: its parameters by name, their gradients and an optimizer of its share."""
    monkeypatch.setattr(module, "BUCKET_BYTES", (bucket_bytes, bucket_bytes))
    found = []
    for world in RANKS:
        torch.manual_seed(0)
        parameters = {name: nn.Parameter(torch.randn(size)) for name, size in SIZES.items()}
        gradients = Gradients(parameters, world=world, table=parameters["table"])
        groups = [
            {"params": [gradients.own(parameters[name]) for name in names]}
            for names in (["table", "low"], ["bias", "high"])
        ]
        found.append((parameters, gradients, torch.optim.AdamW(groups, lr=0.1, fused=True)))
    return found


@pytest.mark.parametrize("bucket_bytes", [1, 600, 1 << 20])
def test_each_rank_updates_its_share(bucket_bytes, collectives, monkeypatch):
    """Every element but the table's is one rank's to update, whose state it has; the table is everybody's."""
    ranks = make_ranks(bucket_bytes, monkeypatch)
    before = {name: each.detach().clone() for name, each in ranks[0][0].items()}
    changed = []
    for parameters, gradients, optimizer in ranks:
        collectives.clear()
        groups = optimizer.param_groups
        for each in parameters.values():
            each.grad.fill_(0.5)
        gradients.update(optimizer)
        shares = [(bucket.values, bucket.values[bucket.share]) for bucket in gradients._shared]
        gathered = [("gather", whole.data_ptr(), own.data_ptr()) for whole, own in shares]
        assert collectives == gathered + ["waited"] * len(shares)
        assert optimizer.param_groups is groups
        assert not any(each.grad.any() for each in parameters.values())
        changed.append({name: each.detach() != before[name] for name, each in parameters.items()})
        num_states = sum(state["exp_avg"].numel() for state in optimizer.state.values())
        assert num_states == sum(int(each.sum()) for each in changed[-1].values())
    for name in SIZES:
        num_updates = torch.stack([each[name] for each in changed]).sum(dim=0)
        assert (num_updates == (3 if name == "table" else 1)).all(), name


def test_the_norm_counts_every_gradient_once(monkeypatch):
    """Each rank's own share, the others', and the table, which all have."""
    ranks = make_ranks(600, monkeypatch)
    for parameters, _, _ in ranks:
        for number, each in enumerate(parameters.values()):
            each.grad.fill_(float(number + 1))
    plain = torch.cat([each.grad.flatten() for each in ranks[0][0].values()])
    asked = []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: asked.append(tensor.clone()))
    for _, gradients, optimizer in ranks:
        gradients.clip(10.0, optimizer)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.copy_(sum(asked)))
    for _, gradients, optimizer in ranks:
        norm = gradients.clip(10.0, optimizer)
        assert norm.item() == pytest.approx(plain.norm().item(), rel=1e-6)
        assert optimizer.grad_scale.item() == pytest.approx(norm.item() / 10.0)


@pytest.mark.parametrize("bucket_bytes", [1, 600, 1 << 20])
def test_a_state_is_cut_into_what_each_rank_updates(bucket_bytes, monkeypatch):
    """A whole state, as a checkpoint holds it, lands with each rank as its shares, in order."""
    ranks = make_ranks(bucket_bytes, monkeypatch)
    whole = {f"{name}.exp_avg": torch.randn(size) for name, size in SIZES.items()}
    whole |= {f"{name}.exp_avg_sq": torch.rand(size) for name, size in SIZES.items()}
    whole |= {f"{name}.step": torch.tensor(7.0) for name in SIZES}
    for _, gradients, optimizer in ranks:
        gradients.load_state(optimizer, whole)

    for key, expected in whole.items():
        name, kind = key.split(".")
        parts = [optimizer.state[held.own(named[name])][kind] for named, held, optimizer in ranks]
        if name == "table" or kind == "step":
            assert all(torch.equal(part, expected) for part in parts), key
        else:
            assert torch.equal(torch.cat(parts), expected.flatten()), key


@pytest.mark.parametrize("bucket_bytes", [1, 600, 1 << 20])
def test_a_state_is_put_together_as_it_was_cut(bucket_bytes, monkeypatch):
    """What rank 0 gets for a checkpoint is whole, and its own: a step later it is still the same."""
    ranks = make_ranks(bucket_bytes, monkeypatch)
    whole = {
        f"{name}.{kind}": torch.rand(SIZES[name]) for name in SIZES for kind in ("exp_avg", "exp_avg_sq")
    }
    whole |= {f"{name}.step": torch.tensor(7.0) for name in SIZES}
    for _, gradients, optimizer in ranks:
        gradients.load_state(optimizer, whole)
    flats = []
    monkeypatch.setattr(module, "_all_gather", lambda flat, _: flats.append(flat.clone()))
    assert [bool(gradients.state_of(optimizer)) for _, gradients, optimizer in ranks] == [True, False, False]
    # each rank's buffers are zero but for its shares
    num = len(flats) // len(ranks)
    sums = iter([sum(flats[number::num]) for number in range(num)])
    monkeypatch.setattr(module, "_all_gather", lambda flat, _: flat.copy_(next(sums)))
    _, gradients, optimizer = ranks[0]
    found = gradients.state_of(optimizer)
    optimizer.step()
    assert found.keys() == whole.keys()
    assert not [key for key, expected in whole.items() if not torch.equal(found[key], expected)]
