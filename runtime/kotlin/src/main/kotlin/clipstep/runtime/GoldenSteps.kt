@file:JvmName("GoldenChecks")

package clipstep.runtime

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** The largest error that an artifact of that precision may have, as a fraction of each output's scale; see [GoldenSteps.scales]. */
@JvmField
public val BOUNDS: Map<String, Double> = mapOf("float32" to 1e-4, "float16" to 2e-2, "dynamic8" to 0.1, "int8" to 0.3, "w8a8" to 0.3, "palette8" to 0.1, "palette6" to 0.3, "palette4" to 1.0)

private const val LEAST_SHARE = 1 / 20.0
private const val LEAST_SCALE = 1e-2

/**
 * N consecutive steps of one stream: recorded inputs and expected outputs, against which an artifact can be checked on any device.
 *
 * Step `i` takes subclip `i % S`. States, and the outputs that the export kept, are recorded after each of the last M steps; M is N, unless they
 * are large.
 */
public class GoldenSteps private constructor(
    private val subclips: StoredTensor,
    private val logits: StoredTensor,
    private val states: List<StoredTensor>,
    private val kept: List<StoredTensor>,
    private val flushed: StoredTensor?,
    private val storedAfter: StoredTensor?,
) {
    /** N, the number of steps. */
    public val steps: Int get() = logits.shape[0]

    /**
     * The scales by which errors are divided, of the logits, then of each state and each kept output: the output's range over all golden steps and
     * elements, at least a twentieth of its largest magnitude, 0.01 if it is zero everywhere. The same as Python's `scale_of`.
     */
    public val scales: List<Double> by lazy { (listOf(logits) + states + kept).map { scaleOf(it) } }

    /**
     * The scale of the logits of flushed videos: the larger one of theirs and of those of the steps, which are zeros where a stream has no
     * prediction before the end of so short a video. The same as Python's `flushed_scale`.
     */
    internal val flushedScale: Double by lazy { max(scales[0], flushed?.let { scaleOf(it) } ?: 0.0) }

    /** Whether the frames are float32: those of joints, or of images on another scale. */
    public val hasFloatFrames: Boolean get() = subclips.dtype == "F32"

    /** The frames of a step, such as (T, H, W, 3) uint8; of float32 frames their little-endian bytes. */
    public fun subclip(step: Int): ByteArray = subclips.bytes(step % subclips.shape[0])

    /** The frames of a step that are float32, such as joints (T, V, C); see [hasFloatFrames]. */
    public fun floatSubclip(step: Int): FloatArray = subclips.floats(step % subclips.shape[0])

    /** Runs a step of [model] on the frames of golden step [step]. */
    internal fun run(model: StepModel, step: Int, states: List<FloatArray>): StepResult =
        if (hasFloatFrames) model.step(floatSubclip(step), states) else model.step(subclip(step), states)

    /** The recorded logits of a step, (classes,). */
    public fun logits(step: Int): FloatArray = logits.floats(step)

    /**
     * The numbers of steps after which a flush was recorded. Empty if the network has nothing to flush, and in bundles that do not record
     * flushes, whose flush is not checked.
     */
    public val flushedAfter: List<Long> by lazy { storedAfter?.let { after -> List(after.shape[0]) { after.long(it) } }.orEmpty() }

    /** The recorded logits (classes,) that a flush returns after the first [steps] steps; null if no flush was recorded there. */
    internal fun flushed(steps: Int): FloatArray? = flushedAfter.indexOf(steps.toLong()).takeIf { it >= 0 }?.let { flushed!!.floats(it) }

    /** The recorded states and then the kept outputs after a step, in the manifest's order; null if they were not recorded. */
    internal fun besideLogits(step: Int): List<FloatArray>? {
        val recorded = states + kept
        val leftOut = steps - (recorded.firstOrNull()?.shape?.get(0) ?: steps)
        return if (step < leftOut) null else recorded.map { it.floats(step - leftOut) }
    }

    /** Checks that the golden steps fit the interface, and that there is at least one. */
    internal fun check(spec: Interface) {
        check("subclips", subclips, recordedType(spec.input), spec.input.shape)
        check("logits", logits, "F32", listOf(spec.labels.size))
        if (states.size != spec.states.size) throw unusable("${states.size} states", "${spec.states.size}")
        for ((state, tensor) in spec.states.zip(states)) check("states.${state.name}", tensor, "F32", state.shape)
        for ((output, tensor) in spec.keptOutputs.zip(kept)) check("outputs.${output.name}", tensor, "F32", output.shape)
        val recorded = (states + kept).map { it.shape[0] }.distinct()
        if (steps < 1 || subclips.shape[0] < 1 || recorded.size > 1 || recorded.any { it > steps }) {
            val got = "$steps steps on ${subclips.shape[0]} subclips, ${recorded.ifEmpty { listOf(0) }.joinToString(" or ")} with states"
            throw unusable(got, "at least one step and one subclip, and states of no more steps than logits")
        }
        if (flushed != null && storedAfter != null) checkFlushed(spec, flushed, storedAfter)
    }

    /** Artifacts that take float32 may be of a network whose frames are uint8, which is recorded. */
    private fun recordedType(input: Input): String = when {
        input.kind == "video" || input.dtype == "uint8" -> "U8"
        input.kind == "images" && subclips.dtype == "U8" -> "U8"
        else -> "F32"
    }

    private fun checkFlushed(spec: Interface, logits: StoredTensor, after: StoredTensor) {
        check("flushed", logits, "F32", listOf(spec.labels.size))
        check("flushed_after", after, "I64", emptyList())
        if (logits.shape[0] != after.shape[0] || after.shape[0] == 0 || flushedAfter.distinct() != flushedAfter) {
            throw unusable("flushed $logits and flushed_after $after", "a number of steps for each row, each once")
        }
        val flush = spec.flush ?: throw unusable("logits of flushed videos", "none, because the manifest has no flush")
        val shortest = (flush.minFrames + spec.input.frames - 1L) / spec.input.frames
        if (flushedAfter.any { it !in shortest..steps }) throw unusable("flushes after ${flushedAfter.joinToString()} steps", "after $shortest to $steps")
    }

    private fun check(name: String, tensor: StoredTensor, dtype: String, shape: List<Int>) {
        if (tensor.dtype != dtype || tensor.shape.isEmpty() || tensor.shape.drop(1) != shape) {
            throw unusable("$name $tensor", "$name $dtype (steps, ${shape.joinToString()})")
        }
    }

    private fun checkFinite(spec: Interface) {
        val names = listOf("logits") + spec.states.map { "states.${it.name}" } + spec.keptOutputs.map { "outputs.${it.name}" }
        val frames = if (hasFloatFrames) listOf("subclips" to subclips) else emptyList()
        val ended = if (flushed != null) listOf("flushed" to flushed) else emptyList()
        for ((name, tensor) in names.zip(listOf(logits) + states + kept) + frames + ended) {
            val finite = (0 until tensor.shape[0]).all { index -> tensor.floats(index).all { it.isFinite() } }
            if (!finite) throw unusable("a value in $name that is not finite", "numbers")
        }
    }

    private fun unusable(got: String, expected: String) =
        BundleException("the golden steps cannot be used", got = got, expected = expected, fix = "export it again")

    public companion object {
        /**
         * Returns the golden steps of a bundle, checked against its manifest.
         *
         * @throws BundleException they cannot be read, there are none, or they do not fit the manifest.
         */
        @JvmStatic
        public fun of(bundle: Bundle): GoldenSteps {
            val path = bundle.file(bundle.manifest.golden)
            val values = readSafetensors(path)
            fun tensor(name: String) = values[name]
                ?: throw BundleException("$path: cannot be read", got = "no $name", expected = "golden steps", fix = "export it again")
            val spec = bundle.manifest.interfaceFor(bundle.manifest.input.dtype)
            val flushed = if ("flushed" in values || "flushed_after" in values) tensor("flushed") to tensor("flushed_after") else null to null
            val states = spec.states.map { tensor("states.${it.name}") }
            val kept = spec.keptOutputs.map { tensor("outputs.${it.name}") }
            return GoldenSteps(tensor("subclips"), tensor("logits"), states, kept, flushed.first, flushed.second).apply {
                check(spec)
                checkFinite(spec)
            }
        }
    }
}

/** Returns the scale of a tensor; see [GoldenSteps.scales]. */
private fun scaleOf(tensor: StoredTensor): Double {
    var (low, high) = Double.POSITIVE_INFINITY to Double.NEGATIVE_INFINITY
    for (index in 0 until tensor.shape[0]) {
        for (value in tensor.floats(index)) {
            low = min(low, value.toDouble())
            high = max(high, value.toDouble())
        }
    }
    val scale = if (low > high) 0.0 else max(high - low, LEAST_SHARE * max(abs(low), abs(high)))
    return if (scale == 0.0) LEAST_SCALE else scale
}

/** The largest errors over the golden steps: absolute, and as a fraction of the output's scale. */
public data class Errors(val steps: Int, val absolute: Double, val relative: Double)

/**
 * Runs the golden steps, the recorded flushes, and the first step again after a reset, and compares all outputs.
 *
 * If every output is within its bound, the artifact's likeliest class is the same as the reference's wherever the reference's leads the
 * next class by more than twice the bound.
 *
 * @param precision decides the bound; by default it is that of the model's artifact.
 * @param progress is told after each step how many of the steps are done.
 *
 * @throws ParityException an error exceeds the precision's bound, a value is not finite, or the first step gives other outputs after the
 *   reset.
 * @throws BundleException the golden steps do not fit the model.
 */
@JvmOverloads
public fun checkGolden(model: StepModel, golden: GoldenSteps, precision: String = model.precision, progress: Progress = Progress { _, _ -> }): Errors {
    golden.check(model.spec)
    var errors = Errors(golden.steps, 0.0, 0.0)
    var states = model.initialStates()
    var first: StepResult? = null
    for (step in 0 until golden.steps) {
        val result = golden.run(model, step, states)
        errors = compare(model, golden, step, result, BOUNDS.getValue(precision), errors)
        errors = compareFlushed(model, golden, step + 1, result.states, BOUNDS.getValue(precision), errors)
        states = result.states
        first = first ?: result
        progress.at(step + 1L, golden.steps.toLong())
    }
    val again = golden.run(model, 0, model.initialStates())
    if (first != null && !same(first, again)) {
        throw ParityException("after a reset the first step gives other outputs than before", expected = "the same, bit for bit")
    }
    return errors
}

private fun compare(model: StepModel, golden: GoldenSteps, step: Int, result: StepResult, bound: Double, before: Errors): Errors {
    val names = listOf("logits") + model.spec.states.map { it.name } + model.spec.keptOutputs.map { it.name }
    val references = listOf(golden.logits(step)) + golden.besideLogits(step).orEmpty()
    val values = outputs(result)
    var errors = before
    for ((index, reference) in references.withIndex()) {
        val error = largestDifference(values[index], reference)
        val scale = golden.scales[index]
        if (!error.isFinite()) throw ParityException("${names[index]} is not finite at step $step", expected = "numbers, as in the golden steps")
        if (error > bound * scale) {
            throw ParityException("${names[index]} is off at step $step", got = "an error of %.3g".format(error), expected = "at most %.3g".format(bound * scale))
        }
        errors = errors.copy(absolute = max(errors.absolute, error), relative = max(errors.relative, error / scale))
    }
    return errors
}

/** Flushes after the first [steps] steps and compares the logits with the recorded ones, if there are any. */
private fun compareFlushed(model: StepModel, golden: GoldenSteps, steps: Int, states: List<FloatArray>, bound: Double, before: Errors): Errors {
    val reference = golden.flushed(steps) ?: return before
    val error = largestDifference(endVideo(model, states), reference)
    val scale = golden.flushedScale
    if (!error.isFinite()) throw ParityException("logits of the flushed video are not finite at step $steps", expected = "numbers, as in the golden steps")
    if (error > bound * scale) {
        val plural = if (steps == 1) "" else "s"
        throw ParityException(
            "logits are off where a video of $steps step$plural is flushed", got = "an error of %.3g".format(error), expected = "at most %.3g".format(bound * scale),
        )
    }
    return before.copy(absolute = max(before.absolute, error), relative = max(before.relative, error / scale))
}

/** Returns the logits of a whole video from the states after its last step, by running the steps that the manifest's `flush` describes. */
private fun endVideo(model: StepModel, states: List<FloatArray>): FloatArray {
    val flush = model.spec.flush!!
    val ended = model.spec.states.indexOfFirst { it.name == flush.state }
    var result = StepResult(FloatArray(0), states.mapIndexed { index, state -> if (index == ended) FloatArray(state.size) { 1f } else state })
    val elements = model.spec.input.elements
    val floats = model.spec.input.dtype == "float32"
    repeat(flush.steps) { result = if (floats) model.step(FloatArray(elements), result.states) else model.step(ByteArray(elements), result.states) }
    return result.logits
}

/** The largest difference; NaN if a value is NaN. */
private fun largestDifference(value: FloatArray, reference: FloatArray): Double {
    var largest = 0.0
    for (i in reference.indices) largest = Math.max(largest, abs(value[i].toDouble() - reference[i]))
    return largest
}

private fun same(one: StepResult, other: StepResult): Boolean = outputs(one).zip(outputs(other)).all { (a, b) -> a.contentEquals(b) }

private fun outputs(result: StepResult): List<FloatArray> = listOf(result.logits) + result.states + result.kept.values
