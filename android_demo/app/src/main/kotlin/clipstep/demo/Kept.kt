package clipstep.demo

import android.util.Log
import java.io.File
import java.io.IOException
import java.time.Instant
import java.time.format.DateTimeParseException
import kotlinx.serialization.json.Json

/** A sustained run as it was written to a file, with the records of the short test before it; [measured] is when it ended. */
internal class Kept(val file: File, val quick: List<Record>, val record: SustainedRecord) {
    val measured: Instant = Instant.parse(record.measuredUtc)
}

/** Returns what a file of records holds; null if its last line is no sustained run, or it is damaged. */
internal fun kept(file: File): Kept? = try {
    val lines = file.readLines()
    val quick = lines.dropLast(1).map { Json.decodeFromString<Record>(it) }
    Kept(file, quick, Json.decodeFromString(lines.lastOrNull().orEmpty())).takeIf { it.record.isWhole() && quick.isNotEmpty() && quick.all { one -> one.isWhole() } }
} catch (error: IOException) {
    null.also { Log.i(TAG, "unreadable: $file", error) }
} catch (_: IllegalArgumentException) {
    null
} catch (_: DateTimeParseException) {
    null
}

/** Whether it has all that the screen shows. */
private fun SustainedRecord.isWhole() =
    buckets.isNotEmpty() && buckets.all { it.startS >= 0 && it.endS > it.startS && it.p50Ms > 0 && it.p95Ms > 0 } && percentilesMs.keys.containsAll(SUSTAINED_PERCENTILES)

private fun Record.isWhole() = stepMs.isNotEmpty() && (percentilesMs["p50"] ?: 0.0) > 0
