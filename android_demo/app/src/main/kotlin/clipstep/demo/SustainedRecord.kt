package clipstep.demo

import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** The percentiles in a record of a sustained run, and on the screen. */
internal val SUSTAINED_PERCENTILES = listOf("p50", "p90", "p95", "p99")

/** A record of one configuration's steps without pause for minutes, with the keys that `clipstep report` reads. Every key has its unit. */
@Serializable
data class SustainedRecord(
    val bundle: String,
    @SerialName("manifest_sha256") val manifestSha256: String,
    @SerialName("artifact_sha256") val artifactSha256: String,
    val configuration: ConfigurationRecord,
    val device: DeviceRecord,
    @SerialName("tool_versions") val toolVersions: Map<String, String>,
    @SerialName("subclip_s") val subclipS: Double,
    /** The seconds that were asked for. */
    @SerialName("sustained_s") val sustainedS: Int,
    /** Whether it went on for all of them. */
    val complete: Boolean,
    /** Whether the app was not on the screen for a part of it. */
    @SerialName("left_app") val leftApp: Boolean,
    val phone: PhoneRecord,
    val buckets: List<Bucket>,
    /** Asked for every ten seconds; empty before Android 11. */
    val headrooms: List<Headroom>,
    /** All step times, rounded to three digits, and how often each was measured. */
    val histogram: List<StepCount>,
    @SerialName("percentiles_ms") val percentilesMs: Map<String, Double>,
    @SerialName("steps_per_s") val stepsPerS: Double,
    /** A step's time in the last minute over that in the first one; null if there is but one bucket. See [lastOverFirst]. */
    @SerialName("last_over_first") val lastOverFirst: Double?,
    /** When the measurement ended, in UTC, to the second. */
    @SerialName("measured_utc") val measuredUtc: String,
) {
    val durationS: Double get() = buckets.last().endS
}

/**
 * Returns a step's time in the last minute over that in the first one: medians of the buckets' medians. Of a run that is shorter than two minutes it
 * compares halves; null if there is but one bucket.
 */
internal fun lastOverFirst(buckets: List<Bucket>): Double? {
    if (buckets.size < 2) return null
    val end = buckets.last().endS
    val window = minOf(60.0, end / 2)
    val first = buckets.filter { it.endS <= window }.ifEmpty { buckets.take(1) }
    val last = buckets.filter { it.startS >= end - window }.ifEmpty { buckets.takeLast(1) }
    return percentile(last.map { it.p50Ms }, 50) / percentile(first.map { it.p50Ms }, 50)
}

/** Returns the record of a sustained run of the configuration that [winner] measured. */
internal fun sustainedRecord(
    winner: Record, seconds: Int, complete: Boolean, leftApp: Boolean, phone: PhoneRecord, buckets: List<Bucket>, headrooms: List<Headroom>, counts: StepCounts,
) = SustainedRecord(
    winner.bundle, winner.manifestSha256, winner.artifactSha256, winner.configuration, winner.device, winner.toolVersions, winner.subclipS,
    seconds, complete, leftApp, phone, buckets, headrooms, counts.all,
    percentilesMs = SUSTAINED_PERCENTILES.associateWith { counts.percentile(it.drop(1).toInt()) },
    stepsPerS = counts.steps / buckets.last().endS,
    lastOverFirst = lastOverFirst(buckets),
    measuredUtc = Instant.now().truncatedTo(ChronoUnit.SECONDS).toString(),
)
