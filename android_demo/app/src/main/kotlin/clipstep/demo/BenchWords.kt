package clipstep.demo

import android.content.Context
import android.text.format.DateUtils
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.roundToInt

/** A change of speed that is no more than this is called none: two runs of the same differ by as much. */
private const val SAME_PERCENT = 2

/** What ran: `onnxruntime, 2 threads`. */
internal fun Context.way(configuration: ConfigurationRecord): String = getString(R.string.way, configuration.engine, threads(configuration.threads))

/** A sentence that says what is the fastest, and by how much. */
internal fun Context.fastestSentence(records: List<Record>): String {
    val ranked = records.sortedBy { it.percentilesMs.getValue("p50") }
    val (best, ms) = ranked[0].let { way(it.configuration) to it.percentilesMs.getValue("p50") }
    val next = ranked.getOrNull(1) ?: return getString(R.string.only_way, best, ms)
    val more = ((next.percentilesMs.getValue("p50") / ms - 1) * 100).roundToInt()
    return getString(if (more > SAME_PERCENT) R.string.fastest_way else R.string.fastest_by_little, best, ms, way(next.configuration), more)
}

/** A record of the short test in two lines. */
internal fun Context.row(record: Record): String {
    val memory = (record.peakMemoryBytes / 1_000_000).toInt()
    val ms = record.percentilesMs.getValue("p50")
    val first = getString(R.string.bench_row, record.configuration.engine, threads(record.configuration.threads), ms, record.realTimeFactor, memory)
    return first + "\n" + percentileSentence(listOf(50, 90, 95, 99).map { percentile(record.stepMs, it) })
}

/** A sentence with the times that 50, 90, 95 and 99 of 100 steps took at most. */
internal fun Context.percentileSentence(ms: List<Double>): String = getString(R.string.bench_percentiles, ms[0], ms[1], ms[2], ms[3])

/** Whether speed held, whether heat slowed the phone down, and how near to that it was. */
internal fun Context.heldSentences(record: SustainedRecord): List<String> = listOf(held(record), throttled(record.buckets), nearness(record.headrooms))

private fun Context.held(record: SustainedRecord): String {
    val after = duration(record.durationS)
    val percent = ((record.lastOverFirst ?: return getString(R.string.held_unknown)) * 100).roundToInt() - 100
    val sentence = if (abs(percent) <= SAME_PERCENT) R.string.held else if (percent > 0) R.string.held_slower else R.string.held_faster
    return getString(sentence, after, abs(percent))
}

private fun Context.throttled(buckets: List<Bucket>): String {
    val known = buckets.filter { it.thermalStatus != null }
    if (known.isEmpty()) return getString(R.string.throttled_unknown)
    val hot = known.filter { it.thermalStatus != 0 }
    if (hot.isEmpty()) return getString(R.string.throttled_never)
    return getString(R.string.throttled, duration(hot.sumOf { it.endS - it.startS }), heat(hot.maxOf { it.thermalStatus ?: 0 }))
}

private fun Context.nearness(headrooms: List<Headroom>): String {
    val most = headrooms.mapNotNull { it.share }.maxOrNull() ?: return getString(R.string.headroom_unknown)
    return getString(R.string.headroom, (most * 100).roundToInt())
}

/** A thermal status above 0 in words; one that is not known yet is said by its number. */
internal fun Context.heat(status: Int): String = resources.getStringArray(R.array.heat).getOrNull(status - 1) ?: status.toString()

/** A number of seconds, or of minutes if it is whole ones, in words. */
internal fun Context.duration(seconds: Double): String {
    val whole = maxOf(seconds.roundToInt(), 1)
    val (text, count) = if (whole % 60 == 0) R.plurals.minutes to whole / 60 else R.plurals.seconds to whole
    return resources.getQuantityString(text, count, count)
}

/** How a sustained run stands. */
internal fun Context.progress(run: LongRun): String {
    val left = ceil(run.plan.seconds - (run.buckets.lastOrNull()?.endS ?: 0.0)).toLong().coerceAtLeast(0)
    return getString(R.string.long_running, way(run.plan.winner.configuration), DateUtils.formatElapsedTime(left), run.steps)
}

/** How a sustained run ended. */
internal fun Context.ending(run: LongRun): String = when {
    run.stage == Stage.FAILED -> getString(R.string.bench_failed, run.error) + if (run.record == null) "" else ". " + getString(R.string.long_kept)
    run.stage == Stage.CANCELLED && run.record == null -> getString(R.string.long_cancelled_early)
    run.stage == Stage.CANCELLED -> getString(R.string.long_cancelled, run.record?.durationS?.let { duration(it) }, duration(run.plan.seconds.toDouble()))
    else -> getString(R.string.bench_done, run.file?.name)
}
