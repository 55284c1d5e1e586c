package clipstep.demo

import java.math.BigDecimal
import java.math.MathContext
import java.util.TreeMap
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

private const val SECOND_NS = 1_000_000_000L

/** How many steps took [ms] milliseconds, rounded to three digits. */
@Serializable
data class StepCount(val ms: Double, val steps: Int)

/** Step times, rounded to three digits and counted, so that a run of any length needs little memory. */
internal class StepCounts {
    private val counts = TreeMap<Double, Int>()

    val steps: Int get() = counts.values.sum()
    val all: List<StepCount> get() = counts.map { StepCount(it.key, it.value) }

    fun add(ms: Double, steps: Int = 1) {
        counts.merge(BigDecimal(ms).round(MathContext(3)).toDouble(), steps, Int::plus)
    }

    fun add(other: List<StepCount>) = other.forEach { add(it.ms, it.steps) }

    /** The same percentile as that of a list of all times; see the other [percentile]. */
    fun percentile(percent: Int): Double {
        val position = percent / 100.0 * (steps - 1)
        val (below, above) = at(position.toInt()) to at(minOf(position.toInt() + 1, steps - 1))
        return below + (position - position.toInt()) * (above - below)
    }

    private fun at(index: Int): Double {
        var passed = 0
        return counts.entries.first { passed += it.value; passed > index }.key
    }
}

/** About a second of a sustained run, from [startS] to [endS] after its begin, as the process that measures tells it. */
@Serializable
data class Slice(val startS: Double, val endS: Double, val counts: List<StepCount>)

/**
 * A slice as records hold it. It ends with the first step that is done a second or more after its start; the last one may be shorter.
 */
@Serializable
data class Bucket(
    @SerialName("start_s") val startS: Double,
    @SerialName("end_s") val endS: Double,
    val steps: Int,
    @SerialName("p50_ms") val p50Ms: Double,
    @SerialName("p95_ms") val p95Ms: Double,
    /** Android's thermal status at the bucket's end, from 0 (none) to 6 (shutdown); null before Android 10. */
    @SerialName("thermal_status") val thermalStatus: Int?,
)

internal fun bucket(slice: Slice, thermalStatus: Int?): Bucket {
    val counts = StepCounts().apply { add(slice.counts) }
    return Bucket(slice.startS, slice.endS, counts.steps, counts.percentile(50), counts.percentile(95), thermalStatus)
}

/**
 * Runs a task's steps without pause for so many [seconds], after its warm-up steps, or until it is [stopped], and tells each slice.
 * [clock] is a clock in nanoseconds.
 */
internal fun sustain(task: Task, seconds: Int, stopped: () -> Boolean, clock: () -> Long = System::nanoTime, told: (Slice) -> Unit) = loaded(task) { ready ->
    repeat(task.warmUp) { ready.step() }
    slices(seconds, stopped, clock, told) { ready.step() }
}

internal fun slices(seconds: Int, stopped: () -> Boolean, clock: () -> Long, told: (Slice) -> Unit, step: () -> Unit) {
    val begin = clock()
    var start = begin
    var end = begin
    var counts = StepCounts()
    fun tell() {
        told(Slice((start - begin) / 1e9, (end - begin) / 1e9, counts.all))
        start = end
        counts = StepCounts()
    }
    while (!stopped() && end - begin < seconds * SECOND_NS) {
        val before = clock()
        step()
        end = clock()
        counts.add((end - before) / 1e6)
        if (end - start >= SECOND_NS) tell()
    }
    if (counts.steps > 0) tell()
}
