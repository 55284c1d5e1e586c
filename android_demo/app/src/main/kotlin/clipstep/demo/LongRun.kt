package clipstep.demo

import java.io.File
import java.io.IOException
import kotlinx.serialization.json.Json

/** How a [LongRun] stands. */
internal enum class Stage { RUNNING, COMPLETE, CANCELLED, FAILED }

/** What a [LongRun] is of: the task that won the short test, for so many seconds, and the short test's records, which go into the same file [name]. */
internal class LongPlan(val name: String, val task: Task, val seconds: Int, val quick: List<Record>) {
    val winner: Record = fastest(quick)
}

/** What a [LongRun] measures with. [clockMs] is a clock in milliseconds. */
internal class Instruments(val measurer: Measurer, val facts: DeviceFacts, val thermal: Thermal, val clockMs: () -> Long)

/**
 * A sustained run, which outlives the screen that shows it. What was measured is written when it ends, also if that is before its time; it is marked as
 * not complete then. Used on the main thread.
 */
internal class LongRun(val plan: LongPlan, private val instruments: Instruments, private val records: Records) {
    private val headrooms = Headrooms(instruments.thermal, instruments.clockMs)
    private val counts = StepCounts()
    private val measured = mutableListOf<Bucket>()
    private val temperature = instruments.facts.temperatureC()
    private var isLeft = false

    /** Called after each change. */
    var listener: (() -> Unit)? = null

    /** Called once, at the end, whether or not a screen listens. */
    var whenEnded: () -> Unit = {}

    var stage = Stage.RUNNING
        private set
    var error: String = ""
        private set
    var file: File? = null
        private set
    var record: SustainedRecord? = null
        private set
    val buckets: List<Bucket> get() = measured
    val steps: Int get() = counts.steps

    fun start() = instruments.measurer.sustain(plan.task, plan.seconds, ::told, { end(Stage.COMPLETE) }, { error = it; end(Stage.FAILED) })

    /** The app is no longer on the screen. */
    fun leave() {
        if (stage == Stage.RUNNING) isLeft = true
    }

    fun cancel() {
        if (stage != Stage.RUNNING) return
        instruments.measurer.cancel()
        end(Stage.CANCELLED)
    }

    private fun told(slice: Slice) {
        if (stage != Stage.RUNNING) return
        measured += bucket(slice, instruments.thermal.status())
        headrooms.at(slice.endS)
        counts.add(slice.counts)
        listener?.invoke()
    }

    private fun end(how: Stage) {
        if (stage != Stage.RUNNING) return
        stage = how
        if (measured.isNotEmpty()) {
            record = sustainedRecord(
                plan.winner, plan.seconds, how == Stage.COMPLETE, isLeft, instruments.facts.phone(temperature), buckets, headrooms.answers, counts,
            )
        }
        try {
            file = records.write(plan.name, plan.quick.map { Json.encodeToString(it) } + listOfNotNull(record).map { Json.encodeToString(it) })
        } catch (failed: IOException) {
            stage = Stage.FAILED
            error = failed.message.orEmpty()
        }
        whenEnded()
        listener?.invoke()
    }
}

/** Returns the record of the shortest median step. */
internal fun fastest(records: List<Record>): Record = records.minBy { it.percentilesMs.getValue("p50") }
