"""What the demo prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from nntap.demo.logit_lens import LogitLens, TopToken
from nntap.demo.record import ModuleRecord, Recording
from nntap.demo.result import DemoResult
from nntap.demo.similarity import Similarity
from nntap.demo.tables import Column, Table, print_table
from nntap.demo.timing import Timings

TEXT_WIDTH = 44


def show(result: DemoResult, file: TextIO) -> None:
    """Write the whole report to `file`."""
    subject, batch = result.subject, result.batch
    print(f"Model: {subject.title}", file=file)
    for note in subject.notes:
        print(f"Note: {note}", file=file)
    rows, tokens = batch.mask.shape
    shape = f"[{rows}, {tokens}] tokens with padding"
    print(f"Text:  {rows} sentences from {result.texts.source}, {shape}\n", file=file)
    print_table(modules_table(result.recording), file)
    _show_stats(result.recording, file)
    print_table(times_table(result.timings), file)
    _show_timing_notes(result.timings, file)
    if result.lens is not None:
        _show_lens(result.lens, file)
    elif result.similarity is not None:
        _show_similarity(result.similarity, result.subject.random_weights, file)
    else:
        print("One sentence alone has nothing to be compared with: give two or more lines in --text.", file=file)


@dataclass
class _Group:
    """Modules whose paths differ in numbers only and whose outputs look the same."""

    record: ModuleRecord
    count: int = 0
    bytes: int = 0


def modules_table(recording: Recording) -> Table:
    """The recorded modules; those of repeated layers in one row. Its paths are what `modules=` takes."""
    groups: dict[object, _Group] = {}
    for record in recording.modules:
        key = (pattern(record.path), record.shapes, record.dtypes)
        group = groups.setdefault(key, _Group(record))
        group.count += 1
        group.bytes += record.bytes
    rows = [
        (
            (pattern(group.record.path) if group.count > 1 else group.record.path) or "(the model)",
            str(group.count),
            " + ".join(str(list(shape)) for shape in group.record.shapes) or "no tensor",
            " + ".join(dict.fromkeys(group.record.dtypes)),
            f"{group.bytes:,}",
        )
        for group in groups.values()
    ]
    return Table(
        title=f"nntap.capture(model): {len(recording.modules)} modules recorded",
        columns=(
            Column("module"),
            Column("count", True),
            Column("output"),
            Column("dtype"),
            Column("bytes", True),
        ),
        rows=rows,
    )


def pattern(path: str) -> str:
    """The path with "*" in place of every number."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def times_table(timings: Timings) -> Table:
    """The medians, what each adds to the bare forward, and the bytes beside it."""
    rows = []
    for timing in timings.rows:
        recorded = timing.bytes > 0
        rows.append(
            (
                timing.name,
                f"{timing.seconds * 1e3:.2f}",
                f"{timing.added * 1e3:+.2f}" if recorded else "",
                f"{timing.quartiles[0] * 1e3:+.2f} to {timing.quartiles[1] * 1e3:+.2f}" if recorded else "",
                f"{timing.bytes:,}" if recorded else "",
                f"{timing.megabytes_per_second:,.0f}" if recorded else "",
            )
        )
    return Table(
        title=(
            f"Times: median of {timings.rounds} rounds, taken in turn after {timings.warm_ups} warm-ups, "
            f"{timings.threads} torch threads"
        ),
        columns=(
            Column("run"),
            Column("ms", True),
            Column("added ms", True),
            Column("middle half", True),
            Column("bytes recorded", True),
            Column("MB/s", True),
        ),
        rows=rows,
    )


def similarity_table(similarity: Similarity) -> Table:
    """A row a layer, the mean cosine of every group of pairs, and the gap where there are two groups."""
    groups = similarity.groups
    columns = [Column("after")]
    for group in groups:
        columns += [Column(f"{group} (mean)", True), Column("lowest to highest", True)]
    gap = len(groups) == 2
    if gap:
        columns.append(Column("gap of the means", True))
    rows = []
    for index, layer in enumerate(similarity.layers):
        row = [layer_name(layer)]
        for group in groups:
            values = similarity.of_group(group)[index]
            row += [f"{sum(values) / len(values):.3f}", f"{min(values):.3f} to {max(values):.3f}"]
        if gap:
            row.append(f"{similarity.means(groups[0])[index] - similarity.means(groups[1])[index]:+.3f}")
        rows.append(row)
    return Table("How alike the two sentences of a pair are (cosine of their token means)", columns, rows)


def pairs_table(similarity: Similarity) -> Table:
    """A row a pair, with its cosine in the first and the last layer."""
    values = similarity.values
    rows = [
        (pair.group, shorten(pair.first), shorten(pair.second), f"{first:.3f}", f"{last:.3f}")
        for pair, first, last in zip(similarity.pairs, values[0], values[-1], strict=True)
    ]
    return Table(
        title="The pairs",
        columns=(
            Column("group"),
            Column("first"),
            Column("second"),
            Column(layer_name(similarity.layers[0]), True),
            Column(layer_name(similarity.layers[-1]), True),
        ),
        rows=rows,
    )


def lens_table(lens: LogitLens) -> Table:
    """A row a layer: the likeliest next token and its probability, for every sentence."""
    return Table(
        title="Logit lens: the likeliest next token if the model ended after this layer",
        columns=[Column("after"), *(Column(f"…{sentence[-24:]}") for sentence in lens.sentences)],
        rows=[
            [layer_name(layer), *(_token(top) for top in tokens)]
            for layer, tokens in zip(lens.layers, lens.tokens, strict=True)
        ],
    )


def layer_name(name: str) -> str:
    """ "embeddings" as it is, a number as "layer 3"."""
    return f"layer {name}" if name[0].isdigit() else name


def shorten(text: str, width: int = TEXT_WIDTH) -> str:
    """At most `width` characters, cut with "…"."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _token(top: TopToken) -> str:
    return f"{top.text!r} {top.probability:.2f}"


def _show_stats(recording: Recording, file: TextIO) -> None:
    stats = recording.stats
    print(
        f"{stats.bytes_recorded:,} bytes recorded, {stats.bytes_moved:,} copied. {stats.shared} records "
        f"({stats.bytes_shared:,} bytes) share the copy of a tensor that another module handed on unchanged.",
        file=file,
    )
    for reason, count in stats.slow.items():
        print(f"{count} tensors took the slow way: {reason}.", file=file)
    print(file=file)


def _show_timing_notes(timings: Timings, file: TextIO) -> None:
    print("MB/s: bytes recorded, in 1e6, over the time of the whole run, forward included.", file=file)
    print(
        "Added: over the bare forward of the same round. Middle half: where half of the rounds lie.",
        file=file,
    )
    if any(row.bytes > 0 and row.quartiles[0] < 0 for row in timings.rows):
        print("An added time whose middle half reaches below 0 is lost in this machine's noise.", file=file)
    if any(row.name.endswith("of nnsight") for row in timings.rows):
        print(
            "nnsight's own cache keeps aliases of the tensors of a CPU model and copies nothing; nntap "
            "copies every value as the module gave it back.",
            file=file,
        )
    for note in timings.notes:
        print(f"Note: {note}", file=file)
    print(file=file)


def _show_similarity(similarity: Similarity, random_weights: bool, file: TextIO) -> None:
    print_table(similarity_table(similarity), file)
    print_table(pairs_table(similarity), file)
    if random_weights:
        print("The weights are random, so these similarities mean nothing.", file=file)


def _show_lens(lens: LogitLens, file: TextIO) -> None:
    print_table(lens_table(lens), file)
    differing = [sentence for sentence, agrees in zip(lens.sentences, lens.agrees, strict=True) if not agrees]
    if not differing:
        print("The last row is also what the model itself puts first, for every sentence.", file=file)
    for sentence in differing:
        print(
            f"Note: after {shorten(sentence)!r} the model itself puts another token first than the last row: "
            "it does more to the last layer's output than its final norm and lm_head.",
            file=file,
        )
