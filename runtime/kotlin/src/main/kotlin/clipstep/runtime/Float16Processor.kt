package clipstep.runtime

import java.io.File

/**
 * By processor, what Linux lists among the features of one for which XNNPACK has float16 kernels: half-precision arithmetic on vectors on ARM64; on
 * x86_64 conversions, between which the kernels compute in float32.
 */
private val FLAGS = mapOf("arm64" to setOf("asimdhp"), "x86_64" to setOf("avx2", "f16c"))

/**
 * Whether every core of this processor computes in float16, which the manifest says an artifact needs ([Requires.float16Processor]). On systems other
 * than Android, Linux and macOS it is not known, and taken not to. Android and Linux describe the processor in [cpuinfo].
 */
internal fun computesFloat16(
    machine: String = platform(), system: String = System.getProperty("os.name").orEmpty(), cpuinfo: File = File("/proc/cpuinfo"),
): Boolean {
    if (system.startsWith("Mac")) return machine == "arm64"
    val flags = FLAGS[machine] ?: return false
    if (system != "Linux" || !cpuinfo.canRead()) return false
    val features = cpuinfo.readLines().map { it.split(":", limit = 2) }
        .filter { it.size == 2 && it[0].trim() in setOf("Features", "flags") }
        .map { it[1].trim().split(" ").toSet() }
    return features.isNotEmpty() && features.all { it.containsAll(flags) }
}
