package clipstep.demo

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** A benchmark record with the keys of `clipstep bench`. Every key has its unit. */
@Serializable
data class Record(
    val bundle: String,
    @SerialName("manifest_sha256") val manifestSha256: String,
    @SerialName("artifact_sha256") val artifactSha256: String,
    val configuration: ConfigurationRecord,
    @SerialName("cold_start") val coldStart: ColdStartRecord,
    val device: DeviceRecord,
    @SerialName("tool_versions") val toolVersions: Map<String, String>,
    val placement: Map<String, Int>,
    @SerialName("not_delegated") val notDelegated: List<String>,
    @SerialName("file_bytes") val fileBytes: Long,
    @SerialName("subclip_s") val subclipS: Double,
    @SerialName("peak_memory_bytes") val peakMemoryBytes: Long,
    @SerialName("memory_before_load_bytes") val memoryBeforeLoadBytes: Long,
    @SerialName("step_ms") val stepMs: List<Double>,
    val phone: PhoneRecord,
    @SerialName("percentiles_ms") val percentilesMs: Map<String, Double>,
    @SerialName("steps_per_s") val stepsPerS: Double,
    @SerialName("real_time_factor") val realTimeFactor: Double,
    /** When the measurement ended, in UTC, to the second: `2026-11-28T12:00:00Z`. */
    @SerialName("measured_utc") val measuredUtc: String,
)

/** What was measured. */
@Serializable
data class ConfigurationRecord(
    val name: String,
    val target: String,
    val form: String,
    val precision: String,
    val engine: String,
    val threads: Int,
    val file: String,
    val spinning: Boolean,
    /** Those of onnxruntime, in their order; null for other engines. */
    val providers: List<String>?,
)

/** How loading and the first step went. The threads are those that were asked for: ExecuTorch and onnxruntime do not report how many they use. */
@Serializable
data class ColdStartRecord(
    @SerialName("load_s") val loadS: Double,
    @SerialName("first_step_ms") val firstStepMs: Double,
    @SerialName("threads_used") val threadsUsed: Int,
    @SerialName("largest_error") val largestError: Double,
)

/** Where it was measured. */
@Serializable
data class DeviceRecord(@SerialName("cpu_model") val cpuModel: String, val cores: Int, val os: String, val machine: String)

/** What only phones record. */
@Serializable
data class PhoneRecord(
    val model: String,
    @SerialName("build_fingerprint") val buildFingerprint: String,
    /** The battery's temperature; null if the phone does not report it. */
    @SerialName("temperature_before_c") val temperatureBeforeC: Double?,
    @SerialName("temperature_after_c") val temperatureAfterC: Double?,
    /** From 0 (none) to 6 (shutdown); null before Android 10. */
    @SerialName("thermal_status_after") val thermalStatusAfter: Int?,
)
