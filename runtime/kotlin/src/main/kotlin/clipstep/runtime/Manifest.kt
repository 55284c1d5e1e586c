@file:JvmName("Manifests")

package clipstep.runtime

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonClassDiscriminator
import kotlinx.serialization.json.JsonObject

/** The layouts of each kind of input; a letter is an axis: time, height, width, channels, persons (M), joints (V). */
private val LAYOUTS = mapOf("video" to listOf("THWC"), "images" to listOf("THWC"), "joints" to listOf("TVC", "TMVC"))

/**
 * The frames of one step. By [kind] they are those of a `video`, in 0..255: (T, H, W, 3) RGB, or (T, H, W, 2) optical flow, as [color] says; `images`
 * (T, H, W, C) of other [channels], on the network's own scale; or the `joints` of skeletons, (T, V, C), of several persons (T, M, V, C).
 *
 * The artifact normalises them itself, by [mean] and [std]. [fps] is the nominal frame rate, that of the training videos. One
 * frame of a video in [frameStride] is used. [color], [crop] and [resize] are null for other kinds than a video.
 */
@Serializable
public data class Input(
    val name: String = "frames",
    val kind: String = "video",
    val shape: List<Int>,
    val dtype: String,
    val layout: String = "THWC",
    val color: String? = "RGB",
    val channels: List<String> = emptyList(),
    val mean: List<Double>,
    val std: List<Double>,
    val fps: Double,
    @SerialName("frame_stride") val frameStride: Int = 1,
    val crop: String? = "center_square",
    val resize: String? = "triangle",
    val tail: String = "drop",
) {
    init {
        one("name", name, "frames")
        one("dtype", dtype, "uint8", "float32")
        one("kind", kind, *LAYOUTS.keys.toTypedArray())
        one("layout", layout, *LAYOUTS.getValue(kind).toTypedArray())
        color?.let { one("color", it, "RGB", "flow") }
        crop?.let { one("crop", it, "center_square") }
        resize?.let { one("resize", it, "triangle") }
        one("tail", tail, "drop")
        require(shape.size == layout.length && shape.all { it >= 1 }) { "shape must be ${layout.length} numbers of at least 1" }
        checkKind()
        val count = color?.let { if (it == "RGB") 3 else 2 } ?: channels.size
        require(setOf(shape.last(), mean.size, std.size) == setOf(count)) { "shape, mean and std must have $count channels for ${color ?: kind}" }
        require(std.all { it > 0 }) { "std must be above 0" }
        require(fps in 1e-3..1e4) { "fps must be 0.001 to 10000" }
        require(frameStride in 1..10_000) { "frame_stride must be 1 to 10000" }
    }

    private fun checkKind() {
        val video = kind == "video"
        require(listOf(color, crop, resize).all { (it != null) == video } && channels.isEmpty() == video) {
            "color, crop and resize are given for a video, and channels for other kinds, but this is $kind"
        }
        require(kind != "joints" || dtype == "float32") { "joints are float32" }
        require(channels.distinct().size == channels.size && channels.all { it.isNotBlank() && it.codePointCount(0, it.length) <= CHANNEL_LENGTH }) {
            "the names of channels must differ from each other, and have 1 to $CHANNEL_LENGTH characters"
        }
        require(mean.size <= CHANNELS) { "there may be $CHANNELS channels, not ${mean.size}" }
    }

    /** What the frames are in a few words, such as `RGB frames` or `joints (x, y, score)`. */
    val content: String get() = color?.let { if (it == "RGB") "RGB frames" else "optical flow" } ?: "$kind (${channels.joinToString()})"

    /** T: the frames of a step. */
    val frames: Int get() = shape[0]

    /** How many numbers the frames of a step have. */
    val elements: Int get() = shape.fold(1, Int::times)

    override fun toString(): String = "$dtype (${shape.joinToString()}), $content"
}

/** A tensor passed from step to step. Before a video's first step every element is [initial]. */
@Serializable
public data class State(val name: String, val shape: List<Int>, val dtype: String, val initial: Float) {
    init {
        one("dtype", dtype, "float32")
        require(shape.size <= 4 && shape.all { it >= 1 }) { "the shape of state $name must be at most four numbers of at least 1" }
        require(initial.isFinite()) { "the initial value of state $name must be a float32 number" }
    }

    /** How many numbers the state has. */
    val elements: Int get() = shape.fold(1, Int::times)
}

/** An output of a step beside its logits and its next states, such as an embedding or the logits of another head. */
@Serializable
public data class KeptOutput(val name: String, val shape: List<Int>, val dtype: String = "float32") {
    init {
        one("dtype", dtype, "float32")
        require(shape.size in 1..4 && shape.all { it >= 1 }) { "the shape of output $name must be one to four numbers of at least 1" }
    }

    /** How many numbers the output has. */
    val elements: Int get() = shape.fold(1, Int::times)
}

/** What an artifact's first output may hold. The runtime applies softmax to `logits`, sigmoid to `multilabel_logits`, and nothing to the others. */
@JvmField
public val OUTPUT_KINDS: List<String> = listOf("logits", "probabilities", "multilabel_logits", "multilabel_probabilities")

/**
 * How to get the logits of a whole video from a network with a delay: after the video's last step the caller sets [state] to 1 and runs
 * [steps] more steps, whose frames are ignored. A video needs at least [minFrames] frames.
 */
@Serializable
public data class Flush(val state: String, val steps: Int, @SerialName("min_frames") val minFrames: Int) {
    init {
        require(steps in 1..10_000) { "flush.steps must be 1 to 10000" }
        require(minFrames >= 1) { "flush.min_frames must be at least 1" }
    }
}

/**
 * What a caller needs to run an artifact. It is part of the manifest, and embedded in each artifact as metadata.
 *
 * Predictions lag [delayFrames] frames behind the newest frame. [outputKind], one of [OUTPUT_KINDS], says what the first output holds.
 * [temporalAverage] says which frames a prediction is the mean over, if that is known: all frames so far if it is `cumulative`, the newest
 * [windowFrames] if it is `sliding_window`. [outputs] are the logits, then each next state, then each of [keptOutputs].
 */
@Serializable
public data class Interface(
    val name: String,
    val input: Input,
    val states: List<State>,
    val labels: List<String>,
    @SerialName("delay_frames") val delayFrames: Int = 0,
    @SerialName("output_kind") val outputKind: String = OUTPUT_KINDS[0],
    val flush: Flush? = null,
    @SerialName("temporal_average") val temporalAverage: String? = null,
    @SerialName("window_frames") val windowFrames: Int? = null,
    @SerialName("kept_outputs") val keptOutputs: List<KeptOutput> = emptyList(),
    val outputs: List<String> = listOf("logits") + states.map { "${it.name}_out" } + keptOutputs.map { it.name },
    @SerialName("schema_version") val schemaVersion: String = SCHEMA_VERSION,
) {
    init {
        one("output_kind", outputKind, *OUTPUT_KINDS.toTypedArray())
        checkFlush(flush, states)
    }
}

/** A layer whose rounding to int8 moves the prediction, and its [share] of what the rounding of all layers moves. */
@Serializable
public data class SensitiveLayer(val layer: String, val share: Double)

/** An operator of the lowered graph that no delegate runs, or that an artifact of lower precision computes in float32, for [reason], and how often. */
@Serializable
public data class NotDelegated(val operator: String, val count: Int, val reason: String)

/**
 * How an artifact holds [count] weights of its convolutions and matrix products, whose numbers are the [share] of those of all constants: as integers of
 * so many [bits] with a scale for each output channel (`linear`), or as indices into a `palette` for each weight. [asFloats] are the other constants, by
 * the operation that reads them, and why.
 */
@Serializable
public data class CompressedWeights(
    val scheme: String,
    val bits: Int,
    val count: Int,
    val share: Double,
    @SerialName("as_floats") val asFloats: List<NotDelegated> = emptyList(),
) {
    init {
        one("scheme", scheme, "linear", "palette")
        require(bits in setOf(4, 6, 8)) { "bits is 4, 6 or 8, not $bits" }
    }
}

/**
 * Which delegate runs an artifact's nodes: their number by delegate call, the names of those that no delegate takes, and why. [reasons] is empty if it
 * is not known. [inFloat32] are the operators that an artifact of lower precision computes in float32, and why; [inFloat16] are the products that one
 * of dynamic8 or w8a8 computes in float16, and why; [sensitiveLayers] are those layers in int8 whose rounding moves the prediction most, and
 * [int8Layers] is how many there are in all; [compressedWeights] says how the weights are held, if not as floating-point numbers or as what an int8
 * artifact computes with.
 */
@Serializable
public data class Placement(
    val delegated: Map<String, Int>,
    @SerialName("not_delegated") val notDelegated: List<String>,
    val reasons: List<NotDelegated> = emptyList(),
    @SerialName("in_float32") val inFloat32: List<NotDelegated> = emptyList(),
    @SerialName("in_float16") val inFloat16: List<NotDelegated> = emptyList(),
    @SerialName("sensitive_layers") val sensitiveLayers: List<SensitiveLayer> = emptyList(),
    @SerialName("int8_layers") val int8Layers: Int = 0,
    @SerialName("compressed_weights") val compressedWeights: CompressedWeights? = null,
)

/** The errors of an artifact against its reference over the golden steps, and the bound they had to stay within. */
@Serializable
public data class Parity(
    val reference: String,
    val steps: Int,
    @SerialName("max_absolute_error") val maxAbsoluteError: Double,
    @SerialName("max_relative_error") val maxRelativeError: Double,
    val bound: String,
)

/**
 * How far an output of an artifact of lower precision is from that of the float32 artifact, while both run one long stream of frames: the largest
 * errors in the first and in the last tenth of the steps, as shares of the output's range.
 */
@Serializable
public data class Drift(
    val output: String,
    @SerialName("first_tenth") val firstTenth: Double,
    @SerialName("last_tenth") val lastTenth: Double,
)

/**
 * An artifact of lower precision compared with the float32 artifact [file], on the same videos. [top1] is the accuracy of the float32 artifact,
 * [top1Change] that of the other minus it. The intervals are of 95 %: Newcombe's for paired proportions, and Wilson's.
 */
@Serializable
public data class AgainstFloat32(
    val file: String,
    val engine: String,
    val top1: Double,
    @SerialName("top1_change") val top1Change: Double,
    @SerialName("top1_change_interval") val top1ChangeInterval: List<Double>,
    @SerialName("gained_videos") val gainedVideos: Int,
    @SerialName("lost_videos") val lostVideos: Int,
    val steps: Int,
    @SerialName("agreeing_steps") val agreeingSteps: Int,
    @SerialName("agreement_interval") val agreementInterval: List<Double>,
    @SerialName("drift_steps") val driftSteps: Int,
    val drift: List<Drift>,
) {
    init {
        require(top1ChangeInterval.size == 2 && agreementInterval.size == 2) { "an interval must be two numbers" }
    }
}

/**
 * The accuracy of an artifact in its own engine on the videos of a test list, on that [processor], and the comparison with a float32 artifact where
 * that was made.
 */
@Serializable
public data class Accuracy(
    val dataset: String,
    val engine: String,
    val videos: Int,
    val crops: Int,
    val top1: Double,
    val top5: Double?,
    @SerialName("skipped_videos") val skippedVideos: Int = 0,
    val processor: String? = null,
    @SerialName("against_float32") val againstFloat32: AgainstFloat32? = null,
) {
    init {
        processor?.let { one("processor", it, "any", "arm64", "x86_64") }
    }
}

/** What the engine executes on ARM64 for one step with one thread, counted rather than timed. */
@Serializable
public data class Arm64Step(
    val engine: String,
    @SerialName("engine_version") val engineVersion: String,
    @SerialName("golden_steps") val goldenSteps: Int,
    val instructions: Long,
    @SerialName("vector_fmas") val vectorFmas: Long,
    val loads: Long,
    val stores: Long,
)

/** The variants of an artifact that `--tune` measured, with the cost of a step of each in [unit], and the one that was kept. */
@Serializable
public data class Tuning(val unit: String, val chosen: String, val measured: Map<String, Double>)

/** The most that an artifact may take: time or instructions of a step, peak memory, and its file. What is null has no limit. */
@Serializable
public data class Budget(
    @SerialName("latency_ms") val latencyMs: Double? = null,
    @SerialName("memory_bytes") val memoryBytes: Long? = null,
    @SerialName("size_bytes") val sizeBytes: Long? = null,
    val instructions: Long? = null,
)

/**
 * A variant of an artifact that `--tune` measured. [cost] is that of a step, in the unit of the [Choice]. With a [fault] it computed numbers beyond the
 * bound. [maxRelativeError] is its largest error on the golden steps, if it is of int8. [float32Layers] is how many of the layers that int8 could compute are in float32 because the budget allows it.
 */
@Serializable
public data class MeasuredVariant(
    val variant: String,
    val cost: Double,
    @SerialName("size_bytes") val sizeBytes: Long,
    @SerialName("peak_memory_bytes") val peakMemoryBytes: Long? = null,
    val fault: String? = null,
    @SerialName("max_relative_error") val maxRelativeError: Double? = null,
    @SerialName("float32_layers") val float32Layers: Int = 0,
)

/** A precision that `--tune` tried: the [variant] of it that stands for it, what that one reached, and why it was chosen or why not ([verdict]). */
@Serializable
public data class TriedPrecision(
    val precision: String,
    val variant: String,
    val accuracy: Accuracy? = null,
    val verdict: String,
    val variants: List<MeasuredVariant>,
) {
    init {
        one("precision", precision, *PRECISIONS.toTypedArray())
        require(variants.any { it.variant == variant }) { "the variant must be one of variants, not $variant" }
    }
}

/** What `--tune` tried for a target on a platform, and the [precision] that was chosen: the one to take there unless another is asked for. */
@Serializable
public data class Choice(
    val target: String,
    val platform: String,
    val precision: String,
    val unit: String,
    @SerialName("measured_on") val measuredOn: String,
    val budget: Budget? = null,
    @SerialName("max_accuracy_drop") val maxAccuracyDrop: Double? = null,
    val tried: List<TriedPrecision>,
) {
    init {
        for ((key, value) in listOf("platform" to platform, "measured_on" to measuredOn)) one(key, value, "any", "arm64", "x86_64")
        require(tried.map { it.precision }.let { precision in it && it.distinct() == it }) { "each precision must be tried once, and $precision among them" }
    }
}

/**
 * The format versions of an artifact's file, and the lowest versions of the engines and systems that run it, such as `>=1.17`. With
 * [float16Processor] only processors run it that compute in float16; null is no.
 */
@Serializable
public data class Requires(
    val opset: Int? = null,
    @SerialName("ir_version") val irVersion: Int? = null,
    @SerialName("specification_version") val specificationVersion: Int? = null,
    val onnxruntime: String? = null,
    val executorch: String? = null,
    val ios: String? = null,
    val macos: String? = null,
    @SerialName("float16_processor") val float16Processor: Boolean? = null,
) {
    init {
        for (version in listOfNotNull(onnxruntime, executorch, ios, macos)) require(AT_LEAST.matches(version)) { "a version must look like >=1.17, not $version" }
        require(listOfNotNull(opset, irVersion, specificationVersion).all { it >= 1 }) { "opset and versions must be at least 1" }
    }
}

/** The targets of artifacts, those of Python's `targets.py`. [Engine.all] lists the engines that run them here. */
@JvmField
public val TARGETS: List<String> = listOf("onnx", "executorch", "coreml")

/** The precisions that an artifact can have. */
@JvmField
public val PRECISIONS: List<String> = listOf("float32", "float16", "dynamic8", "int8", "w8a8", "palette8", "palette6", "palette4")

/** One artifact: a file, or for Core ML a folder, of one target. */
@Serializable
public data class Artifact(
    val target: String,
    val platform: String,
    val form: String,
    val precision: String,
    override val file: String,
    @SerialName("size_bytes") override val sizeBytes: Long,
    override val sha256: String,
    @SerialName("tool_versions") val toolVersions: Map<String, String>,
    val placement: Placement,
    @SerialName("input_dtype") val inputDtype: String,
    val parity: Parity,
    val accuracy: Accuracy? = null,
    @SerialName("arm64_step") val arm64Step: Arm64Step? = null,
    val tuning: Tuning? = null,
    val requires: Requires? = null,
) : BundleFile {
    init {
        one("target", target, *TARGETS.toTypedArray())
        one("platform", platform, "any", "arm64", "x86_64")
        one("form", form, "3d", "lowered")
        one("precision", precision, *PRECISIONS.toTypedArray())
        one("input_dtype", inputDtype, "uint8", "float32")
        check()
    }
}

/**
 * The file of the golden steps. [frameSources] says where its frames are from. The export tests the steps with deliberate faults:
 * [undetectedFaults] are those that they do not detect. [recordedBy] says what computed the expected outputs, if it was not the eager
 * network. [omittedSteps] is how many of the last steps a pack leaves out.
 */
@Serializable
public data class Golden(
    override val file: String,
    @SerialName("size_bytes") override val sizeBytes: Long,
    override val sha256: String,
    @SerialName("frame_sources") val frameSources: List<String> = emptyList(),
    @SerialName("undetected_faults") val undetectedFaults: List<String> = emptyList(),
    @SerialName("recorded_by") val recordedBy: String? = null,
    @SerialName("omitted_steps") val omittedSteps: Int = 0,
) : BundleFile {
    init {
        for (source in frameSources) one("frame_sources", source, "run_sample", "sample", "video", "synthetic")
        check()
    }
}

/** A file of a bundle, or a folder that counts as one. [sha256] is its [treeSha256]. */
public interface BundleFile {
    public val file: String
    public val sizeBytes: Long
    public val sha256: String
}

/**
 * Where the network came from. [source] is a run's folder, a factory, or the class of a module in memory; it is information only.
 * [weightsSha256] is the hash of the weights themselves, not of a file. [weightsSource] and [weightsKey] say where they were read from.
 */
@OptIn(ExperimentalSerializationApi::class)
@Serializable
@JsonClassDiscriminator("kind")
public sealed interface Provenance {
    public val source: String
    public val weightsSha256: String
    public val config: Map<String, Int>
    public val weightsSource: String?
    public val weightsKey: String?
}

/** A run of `clipstep train` or `clipstep convert`. */
@Serializable
@SerialName("run")
public data class RunProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    @SerialName("weights_source") override val weightsSource: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
    val architecture: String,
    val training: JsonObject,
) : Provenance

/** A network made by a factory, `package.module:name`. */
@Serializable
@SerialName("factory")
public data class FactoryProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    @SerialName("weights_source") override val weightsSource: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
) : Provenance

/** A network that was exported from memory. */
@Serializable
@SerialName("module")
public data class ModuleProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    @SerialName("weights_source") override val weightsSource: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
) : Provenance

/**
 * How the bundle was made. [streamFrames] is the number of new frames per step, if `--stream` turned a clip network into steps. [adapters] are
 * those that the network was wrapped in; [networkOutputs] says where the outputs are in what the network returns, if it returns several values.
 */
@Serializable
public data class Export(
    @SerialName("clipstep_version") val clipstepVersion: String,
    @SerialName("stream_frames") val streamFrames: Int? = null,
    @SerialName("multiply_accumulates") val multiplyAccumulates: Long? = null,
    val adapters: List<String> = emptyList(),
    @SerialName("network_outputs") val networkOutputs: Map<String, String> = emptyMap(),
)

/** `manifest.json`. Unknown keys are refused, unless the manifest's version is newer than [SCHEMA_VERSION]. */
@Serializable
public data class Manifest(
    val name: String,
    val input: Input,
    val states: List<State>,
    val outputs: List<String>,
    @SerialName("kept_outputs") val keptOutputs: List<KeptOutput> = emptyList(),
    val labels: List<String>,
    @SerialName("delay_frames") val delayFrames: Int = 0,
    @SerialName("output_kind") val outputKind: String = OUTPUT_KINDS[0],
    val flush: Flush? = null,
    @SerialName("temporal_average") val temporalAverage: String? = null,
    @SerialName("window_frames") val windowFrames: Int? = null,
    @SerialName("schema_version") val schemaVersion: String,
    val artifacts: List<Artifact>,
    val golden: Golden,
    val provenance: Provenance,
    val export: Export,
    val choices: List<Choice> = emptyList(),
) {
    init {
        require(labels.isNotEmpty()) { "labels must not be empty" }
        require(artifacts.isNotEmpty()) { "artifacts must not be empty" }
        require(delayFrames in 0..1_000_000) { "delay_frames must be 0 to 1000000" }
        one("output_kind", outputKind, *OUTPUT_KINDS.toTypedArray())
        temporalAverage?.let { one("temporal_average", it, "cumulative", SLIDING_WINDOW) }
        require((windowFrames != null) == (temporalAverage == SLIDING_WINDOW)) { "window_frames is given if, and only if, temporal_average is $SLIDING_WINDOW" }
        checkFlush(flush, states)
        checkSha256("weights_sha256", provenance.weightsSha256)
        checkLimits(this)
        for (choice in choices) {
            val artifact = artifacts.find { it.target == choice.target && it.platform == choice.platform && it.precision == choice.precision }
            require(artifact != null) { "there is no artifact for ${choice.target}, ${choice.platform}, ${choice.precision}, which was chosen" }
            require(choices.count { it.target == choice.target && it.platform == choice.platform } == 1) {
                "there are two choices for ${choice.target}, ${choice.platform}"
            }
        }
    }

    /** The part that an artifact with that input type needs. */
    public fun interfaceFor(inputDtype: String): Interface = Interface(
        name, input.copy(dtype = inputDtype), states, labels, delayFrames, outputKind, flush, temporalAverage, windowFrames, keptOutputs, outputs,
        schemaVersion,
    )
}

private fun one(key: String, value: String, vararg known: String) =
    require(value in known) { "$key must be ${known.joinToString(" or ")}, not $value" }

private fun checkFlush(flush: Flush?, states: List<State>) =
    require(flush == null || states.any { it.name == flush.state }) { "flush names the state ${flush?.state}, which is not among the states" }

private const val SLIDING_WINDOW = "sliding_window"
private val AT_LEAST = Regex(">=[0-9]+(\\.[0-9]+)*")
private val SHA256 = Regex("[0-9a-f]{64}")

private fun BundleFile.check() {
    val parts = plainParts(file)
    val plain = !file.startsWith("/") && file.none { it == '\\' || it == ':' || it < ' ' }
    require(parts.isNotEmpty() && ".." !in parts && plain) { "file must name a file inside the bundle, not $file" }
    require(sizeBytes >= 1) { "size_bytes must be at least 1" }
    checkSha256("sha256", sha256)
}

private fun checkSha256(key: String, value: String) = require(SHA256.matches(value)) { "$key must be 64 hexadecimal digits" }
