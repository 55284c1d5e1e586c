"""A user's file that imports each public name of clipstep; ``mypy --strict`` and pyright check it in a plain checkout (``make test``)."""

from pathlib import Path

import torch
from torch import Tensor, nn

import clipstep
from clipstep.benchmarks import (
    ComparedConfiguration,
    Comparison,
    PeersResult,
    Record,
    StreamsResult,
    bench,
    bench_peers,
    bench_streams,
    compare,
    html_report,
)
from clipstep.export import (
    EvaluatedArtifacts,
    EvaluationData,
    ExportOptions,
    ExportResult,
    StreamCheck,
    VerifiedArtifact,
    VerifyResult,
    WrittenArtifact,
    export,
    export_network,
    network_of_factory,
    network_of_module,
    network_of_run,
    verify,
)
from clipstep.network import Images, Joints, NetworkSpec, normalise, read_subclips
from clipstep.runtime import (
    ENGINES,
    ArtifactInfo,
    Bundle,
    BundleError,
    ClipstepError,
    DamagedVideoError,
    EngineError,
    GoldenSteps,
    LiveVideo,
    Manifest,
    ParityError,
    Prediction,
    StepModel,
    StepOutputs,
    Stream,
    TimedFrame,
    VideoError,
    VideoPrediction,
    check_golden,
    frame_rate,
    inspect,
    plot_choices,
    predict_video,
    read_frames,
    read_timed_frames,
)
from clipstep.training import (
    ARCHITECTURES,
    Clip,
    DataSet,
    Evaluation,
    Run,
    RunInfo,
    SlowFastCausalShuffleNet,
    SlowFastConfig,
    build,
    evaluate,
    load_run,
    read_data_set,
    save_run,
)


def from_a_module(module: nn.Module, out: Path, labels: list[str]) -> float:
    result: ExportResult = export(
        module, out, frames=16, size=112, labels=labels, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), fps=25, on_artifact=_size
    )
    checked: VerifyResult = verify(result.bundle, module=module)
    stream: StreamCheck | None = checked.stream
    artifacts: tuple[VerifiedArtifact, ...] = checked.artifacts
    records: list[Record] = bench(result.bundle, threads=[1])
    page: str = html_report(result.bundle, records)
    return max(artifact.max_relative_error for artifact in artifacts) + records[0].percentile_ms(50) + len(page) + (stream.steps if stream else 0)


def held_to_accuracy(module: nn.Module, out: Path, labels: list[str], data: Path) -> list[float]:
    mean, std, on = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), EvaluationData(data, split=2, drift_steps=100)
    result = export(module, out, frames=16, size=112, labels=labels, mean=mean, std=std, fps=25, evaluate=on, max_accuracy_drop=1.0)
    found: EvaluatedArtifacts | None = result.evaluated
    return [] if found is None else [accuracy.top1 for accuracy in found.accuracies.values()]


def best_for_a_platform(module: nn.Module, out: Path, labels: list[str]) -> list[str]:
    mean, std, precisions = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), ["float32", "executorch=float16"]
    result = export(
        module,
        out,
        frames=16,
        size=112,
        labels=labels,
        mean=mean,
        std=std,
        fps=25,
        precisions=precisions,
        platforms=["arm64"],
        tune=True,
        budget="size=2MB",
    )
    plot_choices(result.manifest.choices, "tried.png")
    return [choice.precision for choice in result.manifest.choices]


def of_other_inputs(module: nn.Module, out: Path, labels: list[str]) -> list[ExportResult]:
    one, three = (0.0,), (0.0, 0.0, 0.0)
    skeletons: Joints = Joints(17, ("x", "y", "score"), persons=2)
    return [
        export(module, out, frames=16, size=112, labels=labels, mean=one, std=(1.0,), fps=25, input=Images(("depth",), "float32")),
        export(module, out, frames=16, labels=labels, mean=three, std=(1.0, 1.0, 1.0), fps=25, input=skeletons),
    ]


def _size(written: WrittenArtifact) -> int:
    return written.artifact.size_bytes


def from_runs_and_factories(run: Path, out: Path) -> list[ExportResult]:
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    specs: list[NetworkSpec] = [
        network_of_run(run),
        network_of_factory("package.module:factory", frames=16, size=112, labels=["a", "b"], mean=mean, std=std, fps=25),
        network_of_module(nn.Identity(), frames=16, size=112, labels=["a", "b"], mean=mean, std=std, fps=25),
    ]
    kinds: list[str] = [spec.provenance.kind for spec in specs]
    return [export_network(spec, out / f"{kind}.clipstep", ExportOptions(("onnx",))) for spec, kind in zip(specs, kinds, strict=True)]


def beside_other_runtimes(bundle: Path, weights: Path) -> float:
    verify(bundle, model="package.module:factory", weights=weights)
    result: PeersResult = bench_peers(bundle, model="package.module:factory", weights=weights, peers=["openvino"])
    return min(record.percentile_ms(50) for record in result.records)


def before_and_after(before: Path, after: Path, limits: Path) -> list[str]:
    comparison: Comparison = compare(before, after, limits=limits, relative_to="naive rank-5 ONNX")
    above: tuple[ComparedConfiguration, ...] = comparison.above_limits
    again: Comparison = compare(bench(before), bench(after), limits={"*": 1.1})
    return [f"{each.name}: {each.ratio:.2f} {each.interval} {each.verdict}" for each in (*above, *again.configurations)] + list(comparison.notes)


def streamed(path: Path, video: Path) -> Prediction | None:
    last: Prediction | None = None
    try:
        with Bundle.open(path) as bundle, StepModel.load(bundle, next(iter(ENGINES))) as model:
            worst: float = check_golden(model, GoldenSteps.of(bundle), "float32").relative
            outputs: StepOutputs = model.step_outputs(GoldenSteps.of(bundle).subclips[0], model.initial_states())
            stream: Stream = model.stream()
            for frame in read_frames(video):
                last = stream.push(frame) or last
            said: list[VideoPrediction] = list(predict_video(model, video, save=["predictions.csv"], note=print))
            last = said[-1].prediction
            with LiveVideo.camera("0", duration=10.0) as camera:
                seen: list[float] = [frame.seconds for frame in camera.frames(size=112)]
                print(camera.name, camera.rate, camera.dropped, seen)
            lived: list[VideoPrediction] = list(predict_video(model, LiveVideo.url("rtsp://door.local/stream", reconnect=60.0)))
            together: list[StreamsResult] = bench_streams(path, video, streams=[1, 4], threads=2)
            print(lived[-1].end, together[-1].real_time_factor)
            timed: list[TimedFrame] = list(read_timed_frames(video))
            print(timed[-1].seconds, worst, frame_rate(video), list(outputs.kept), clipstep.__version__)
    except DamagedVideoError as damage:
        print(damage)
    except (BundleError, EngineError, ParityError, VideoError, ClipstepError) as error:
        print(error)
    return last


def described(path: Path) -> str:
    facts: Manifest | ArtifactInfo = inspect(path)
    return facts.name if isinstance(facts, Manifest) else facts.file


def evaluated(bundle: Path, data: Path) -> float:
    result: Evaluation = evaluate(bundle, data, split=2, engine="executorch", precision="float16")
    low, high = result.top1_interval
    print(result.description, result.top5, result.predictions[0].path, dict(result.skipped), result.warnings)
    return high - low


def trained(data: Path, out: Path) -> Tensor:
    data_set: DataSet = read_data_set(data, 1)
    listed: DataSet = read_data_set(data, 2, layout="csv", allow_leakage=True)
    print(listed.layout, len(listed.validation))
    clip: Clip = data_set.test[0]
    print(clip.shown_path, clip.group)
    subclips = read_subclips(clip.path, 16, 112, cut=clip.cut)
    network: nn.Module = build(next(iter(ARCHITECTURES)), {"classes": 2, "frames": 16, "size": 112})
    assert isinstance(network, SlowFastCausalShuffleNet)
    info = RunInfo("slowfast_causal_shufflenet", vars(SlowFastConfig(classes=2)), ("a", "b"), (0.0,) * 3, (1.0,) * 3, 25.0)
    save_run(out, Run(network, info, subclips))
    with torch.no_grad():
        logits: Tensor = load_run(out).network(normalise(subclips[:1], info.mean, (1.0, 1.0, 1.0)))[0]
    return logits
