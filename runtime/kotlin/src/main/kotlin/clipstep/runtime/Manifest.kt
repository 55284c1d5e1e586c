package clipstep.runtime

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonClassDiscriminator
import kotlinx.serialization.json.JsonObject

/**
 * The frames of one step in 0..255: (T, H, W, 3) RGB, or (T, H, W, 2) optical flow.
 *
 * Normalisation by [mean] and [std] happens inside the artifact, once. [fps] is the nominal frame rate, that of the
 * training videos; every [frameStride]th frame of a video is used.
 */
@Serializable
data class Input(
    val name: String = "frames",
    val shape: List<Int>,
    val dtype: String,
    val layout: String = "THWC",
    val color: String = "RGB",
    val mean: List<Double>,
    val std: List<Double>,
    val fps: Double,
    @SerialName("frame_stride") val frameStride: Int = 1,
    val crop: String = "center_square",
    val resize: String = "triangle",
    val tail: String = "drop",
) {
    init {
        one("name", name, "frames")
        one("dtype", dtype, "uint8", "float32")
        one("layout", layout, "THWC")
        one("color", color, "RGB", "flow")
        one("crop", crop, "center_square")
        one("resize", resize, "triangle")
        one("tail", tail, "drop")
        require(shape.size == 4 && shape.all { it >= 1 }) { "shape must be four numbers of at least 1" }
        val channels = if (color == "RGB") 3 else 2
        require(setOf(shape[3], mean.size, std.size) == setOf(channels)) { "shape, mean and std must have $channels channels for $color" }
        require(std.all { it > 0 }) { "std must be above 0" }
        require(fps in 1e-3..1e4) { "fps must be 0.001 to 10000" }
        require(frameStride in 1..10_000) { "frame_stride must be 1 to 10000" }
    }

    /** T: the frames of a step. */
    val frames: Int get() = shape[0]

    /** Numbers in the frames of a step. */
    val elements: Int get() = shape.fold(1, Int::times)

    override fun toString(): String = "uint8 (${shape.joinToString()}), $color"
}

/** A tensor that carries the past from step to step; every element is [initial] before a video's first step. */
@Serializable
data class State(val name: String, val shape: List<Int>, val dtype: String, val initial: Float) {
    init {
        one("dtype", dtype, "float32")
        require(shape.size <= 4 && shape.all { it >= 1 }) { "the shape of state $name must be at most four numbers of at least 1" }
        require(initial.isFinite()) { "the initial value of state $name must be a float32 number" }
    }

    /** Numbers in the state. */
    val elements: Int get() = shape.fold(1, Int::times)
}

/** What an artifact's first output may hold; the runtime applies softmax to the first, sigmoid to the third, nothing to the others. */
val OUTPUTS: List<String> = listOf("logits", "probabilities", "multilabel_logits", "multilabel_probabilities")

/**
 * How a step is told that the video has ended: the caller sets [state] to 1 after the video's last step, and after [steps] more,
 * on frames that are not looked at, the logits are those of the whole video. The shortest video has [minFrames].
 */
@Serializable
data class Flush(val state: String, val steps: Int, @SerialName("min_frames") val minFrames: Int) {
    init {
        require(steps in 1..10_000) { "flush.steps must be 1 to 10000" }
        require(minFrames >= 1) { "flush.min_frames must be at least 1" }
    }
}

/**
 * What a lone artifact needs to be used; also embedded in each artifact. The newest output that a prediction takes in is [delayFrames]
 * behind the newest frame; [output], one of [OUTPUTS], is what the first output holds; predictions are the mean over what [average] says,
 * `all` frames or a `window` of the newest [windowFrames].
 */
@Serializable
data class Interface(
    val name: String,
    val input: Input,
    val states: List<State>,
    val labels: List<String>,
    @SerialName("delay_frames") val delayFrames: Int = 0,
    val output: String = OUTPUTS[0],
    val flush: Flush? = null,
    val average: String? = null,
    @SerialName("window_frames") val windowFrames: Int? = null,
    val outputs: List<String> = listOf("logits") + states.map { "${it.name}_out" },
    @SerialName("schema_version") val schemaVersion: String = SCHEMA_VERSION,
) {
    init {
        one("output", output, *OUTPUTS.toTypedArray())
        checkFlush(flush, states)
    }
}

/** Where the nodes of an artifact run: how many in which delegate, and the names of those outside all of them. */
@Serializable
data class Placement(val delegated: Map<String, Int>, val outside: List<String>)

/** How close an artifact is to its reference over the golden steps, and the bound that it was held to. */
@Serializable
data class Parity(
    val reference: String,
    val steps: Int,
    @SerialName("max_absolute_error") val maxAbsoluteError: Double,
    @SerialName("max_relative_error") val maxRelativeError: Double,
    val bound: String,
)

/** How right an artifact is, run by its own engine on the videos of a test list. */
@Serializable
data class Accuracy(val data: String, val engine: String, val videos: Int, val crops: Int, val top1: Double, val top5: Double?)

/** What one step costs on ARM64 in its engine, one thread: what was executed, not time. */
@Serializable
data class Arm64Step(
    val engine: String,
    @SerialName("engine_version") val engineVersion: String,
    @SerialName("golden_steps") val goldenSteps: Int,
    val instructions: Long,
    @SerialName("vector_fmas") val vectorFmas: Long,
    val loads: Long,
    val stores: Long,
)

/** How an artifact was written in several ways, a step of each measured in [unit], and the cheapest kept. */
@Serializable
data class Tuning(val unit: String, val chosen: String, val measured: Map<String, Double>)

/** What an artifact's file is written in, and the lowest versions of what runs it, as `>=1.17`. */
@Serializable
data class Requires(
    val opset: Int? = null,
    @SerialName("ir_version") val irVersion: Int? = null,
    @SerialName("specification_version") val specificationVersion: Int? = null,
    val onnxruntime: String? = null,
    val executorch: String? = null,
    val ios: String? = null,
    val macos: String? = null,
) {
    init {
        for (version in listOfNotNull(onnxruntime, executorch, ios, macos)) require(AT_LEAST.matches(version)) { "a version must be as >=1.17, not $version" }
        require(listOfNotNull(opset, irVersion, specificationVersion).all { it >= 1 }) { "opset and versions must be at least 1" }
    }
}

/** The targets that an artifact may be of, those of Python's `targets.py`; what runs one here is in [ENGINES]. */
val TARGETS: List<String> = listOf("onnx", "executorch", "coreml")

/** One file of one target. */
@Serializable
data class Artifact(
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
        one("precision", precision, "float32", "float16")
        one("input_dtype", inputDtype, "uint8", "float32")
        check()
    }
}

/** The golden steps' file; [content] is what its frames are, [undetectedFaults] the faults that they do not detect, because every output stays within the bound;
 * [outputsBy] is what computed the outputs, where it was not the eager network; [leftOutSteps] were left out in packing. */
@Serializable
data class Golden(
    override val file: String,
    @SerialName("size_bytes") override val sizeBytes: Long,
    override val sha256: String,
    val content: List<String> = emptyList(),
    @SerialName("undetected_faults") val undetectedFaults: List<String> = emptyList(),
    @SerialName("outputs_by") val outputsBy: String? = null,
    @SerialName("left_out_steps") val leftOutSteps: Int = 0,
) : BundleFile {
    init {
        for (kind in content) one("content", kind, "run sample", "given", "video", "synthetic")
        check()
    }
}

/** A file of a bundle; of a folder, the hash is that of its `sha256  path` lines in order of path. */
interface BundleFile {
    val file: String
    val sizeBytes: Long
    val sha256: String
}

/**
 * Where the network came from: [source] is a run's folder, a factory or the class of a module in memory, for people to read.
 * [weightsSha256] is the hash of the network's weights, whatever file they lay in.
 */
@OptIn(ExperimentalSerializationApi::class)
@Serializable
@JsonClassDiscriminator("kind")
sealed interface Provenance {
    val source: String
    val weightsSha256: String
    val config: Map<String, Int>
    val weights: String?
    val weightsKey: String?
}

/** A run of `clipstep train` or `clipstep convert`. */
@Serializable
@SerialName("run")
data class RunProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    override val weights: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
    val architecture: String,
    val training: JsonObject,
) : Provenance {
    init {
        checkSha256("weights_sha256", weightsSha256)
    }
}

/** What a factory, `package.module:name`, made. */
@Serializable
@SerialName("factory")
data class FactoryProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    override val weights: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
) : Provenance {
    init {
        checkSha256("weights_sha256", weightsSha256)
    }
}

/** A module that was in memory. */
@Serializable
@SerialName("module")
data class ModuleProvenance(
    override val source: String,
    @SerialName("weights_sha256") override val weightsSha256: String,
    override val config: Map<String, Int>,
    override val weights: String? = null,
    @SerialName("weights_key") override val weightsKey: String? = null,
) : Provenance {
    init {
        checkSha256("weights_sha256", weightsSha256)
    }
}

/** How the bundle was made of the network: [streamFrames] are the new frames a step, where a clip network was made into steps. */
@Serializable
data class Export(
    @SerialName("clipstep_version") val clipstepVersion: String,
    @SerialName("stream_frames") val streamFrames: Int? = null,
    @SerialName("multiply_accumulates") val multiplyAccumulates: Long? = null,
)

/** `manifest.json`: what a bundle says of itself. Unknown keys are refused, unless its version is newer than [SCHEMA_VERSION]. */
@Serializable
data class Manifest(
    val name: String,
    val input: Input,
    val states: List<State>,
    val outputs: List<String>,
    val labels: List<String>,
    @SerialName("delay_frames") val delayFrames: Int = 0,
    val output: String = OUTPUTS[0],
    val flush: Flush? = null,
    val average: String? = null,
    @SerialName("window_frames") val windowFrames: Int? = null,
    @SerialName("schema_version") val schemaVersion: String,
    val artifacts: List<Artifact>,
    val golden: Golden,
    val provenance: Provenance,
    val export: Export,
) {
    init {
        require(labels.isNotEmpty()) { "labels must not be empty" }
        require(artifacts.isNotEmpty()) { "artifacts must not be empty" }
        require(delayFrames in 0..1_000_000) { "delay_frames must be 0 to 1000000" }
        one("output", output, *OUTPUTS.toTypedArray())
        require(average == null || average == "all" || average == "window") { "average must be all or window, not $average" }
        require((windowFrames != null) == (average == "window")) { "window_frames is given if, and only if, average is window" }
        checkFlush(flush, states)
        checkLimits(this)
    }

    /** The part that an artifact with that input type needs. */
    fun interfaceFor(inputDtype: String): Interface =
        Interface(name, input.copy(dtype = inputDtype), states, labels, delayFrames, output, flush, average, windowFrames, outputs, schemaVersion)
}

private fun one(key: String, value: String, vararg known: String) =
    require(value in known) { "$key must be ${known.joinToString(" or ")}, not $value" }

private fun checkFlush(flush: Flush?, states: List<State>) =
    require(flush == null || states.any { it.name == flush.state }) { "flush names the state ${flush?.state}, which is not among the states" }

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
