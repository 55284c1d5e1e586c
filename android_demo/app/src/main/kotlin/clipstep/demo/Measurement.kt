package clipstep.demo

import clipstep.runtime.Artifact
import clipstep.runtime.BOUNDS
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.Engine
import clipstep.runtime.GoldenSteps
import clipstep.runtime.OnnxRuntime
import clipstep.runtime.Provider
import clipstep.runtime.StepModel
import clipstep.runtime.StepResult
import java.io.File
import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlin.math.abs
import kotlinx.serialization.Serializable

/** One measurement of one configuration. */
@Serializable
data class Task(
    val bundle: String,
    val manifestSha256: String,
    val engine: String,
    val threads: Int,
    val warmUp: Int,
    val steps: Int,
    val settings: Settings = Settings(),
) {
    /** The engine with the task's settings. */
    internal fun engine(): Engine = if (engine == "onnxruntime") settings.engine() else Engine.named(engine)
}

/** Settings of onnxruntime: the names of its providers, and whether its threads spin. They are those of the runtime unless adb gives others. */
@Serializable
data class Settings(val providers: List<String> = listOf("cpu"), val spinning: Boolean = false) {
    internal fun engine(): OnnxRuntime = OnnxRuntime(providers.map { Provider.named(it) }, spinning)
}

/** The result of a task: [precision] is that of the artifact that ran, and [processId] shows that it had a process of its own. */
@Serializable
data class Measurement(
    val precision: String,
    val loadS: Double,
    val firstStepMs: Double,
    val largestError: Double,
    val stepMs: List<Double>,
    val memoryBeforeLoadBytes: Long,
    val peakMemoryBytes: Long,
    val processId: Int,
)

/** Warms a task's model up, then times its steps. */
internal fun measure(task: Task, processId: Int): Measurement = loaded(task) { ready ->
    val times = List(task.warmUp + task.steps) {
        val start = System.nanoTime()
        ready.step()
        (System.nanoTime() - start) / 1e6
    }
    val memory = memoryBytes("VmHWM")
    Measurement(ready.precision, ready.loadS, ready.firstStepMs, ready.largestError, times.drop(task.warmUp), ready.memoryBeforeLoadBytes, memory, processId)
}

/** A task's model, loaded and checked by its first step. [step] runs the next one, on golden subclips in turn. */
internal class Ready(
    private val model: StepModel, private val subclips: List<ByteArray>, private var result: StepResult,
    val loadS: Double, val firstStepMs: Double, val largestError: Double, val memoryBeforeLoadBytes: Long,
) {
    val precision: String get() = model.precision
    private var done = 1

    fun step() {
        result = model.step(subclips[done++ % subclips.size], result.states)
    }
}

/** Loads the model of a task, compares its first step with the golden steps, and closes it after the action. */
internal fun <T> loaded(task: Task, action: (Ready) -> T): T {
    val bundle = Bundle.open(File(task.bundle))
    if (bundle.manifestSha256 != task.manifestSha256) throw ClipstepException("${bundle.path.name} was replaced by another bundle", fix = "start the benchmark again")
    val golden = GoldenSteps.of(bundle)
    val subclips = List(minOf(golden.steps, 4)) { golden.subclip(it) }
    val before = memoryBytes("VmRSS")
    val begin = System.nanoTime()
    return StepModel.load(bundle, task.engine(), task.threads).use { model ->
        val loaded = System.nanoTime()
        val result = model.step(subclips[0], model.initialStates())
        val first = System.nanoTime()
        val error = relativeError(result.logits, golden)
        if (!(error <= BOUNDS.getValue(model.precision))) throw ClipstepException("${task.engine} computes something else than the golden steps", got = "a relative error of $error")
        action(Ready(model, subclips, result, (loaded - begin) / 1e9, (first - loaded) / 1e6, error, before))
    }
}

private fun relativeError(got: FloatArray, golden: GoldenSteps): Double {
    val expected = golden.logits(0)
    return got.indices.maxOf { abs(got[it] - expected[it]).toDouble() } / golden.scales[0]
}

/** Returns the memory of this process in bytes: what it uses now for the key `VmRSS`, the peak for `VmHWM`. */
internal fun memoryBytes(key: String): Long {
    val line = File("/proc/self/status").useLines { lines -> lines.first { it.startsWith("$key:") } }
    return line.filter { it.isDigit() }.toLong() * 1024
}

/** Returns a record, as `clipstep bench` writes it, of all measurements of a configuration. */
internal fun record(bundle: Bundle, task: Task, turns: List<Measurement>, facts: DeviceFacts, phone: PhoneRecord): Record {
    val artifact = bundle.artifact(task.engine().target, turns[0].precision)
    val input = bundle.manifest.input
    val times = turns.flatMap { it.stepMs }
    val subclipS = input.frames * input.frameStride / input.fps
    return Record(
        bundle = bundle.path.name,
        manifestSha256 = bundle.manifestSha256,
        artifactSha256 = artifact.sha256,
        configuration = configuration(artifact, task),
        coldStart = ColdStartRecord(turns[0].loadS, turns[0].firstStepMs, task.threads, turns.maxOf { it.largestError }),
        device = facts.device,
        toolVersions = mapOf("clipstep" to facts.appVersion, task.engine to facts.engineVersion(task.engine)),
        placement = artifact.placement.delegated,
        notDelegated = artifact.placement.notDelegated,
        fileBytes = artifact.sizeBytes,
        subclipS = subclipS,
        peakMemoryBytes = turns.maxOf { it.peakMemoryBytes },
        memoryBeforeLoadBytes = turns[0].memoryBeforeLoadBytes,
        stepMs = times,
        phone = phone,
        percentilesMs = listOf(10, 50, 90, 99).associate { "p$it" to percentile(times, it) },
        stepsPerS = 1000 / percentile(times, 50),
        realTimeFactor = subclipS * 1000 / percentile(times, 50),
        measuredUtc = Instant.now().truncatedTo(ChronoUnit.SECONDS).toString(),
    )
}

/** What was measured, by a name that tells other settings of onnxruntime than the runtime's own, as `clipstep bench` does. */
private fun configuration(artifact: Artifact, task: Task): ConfigurationRecord {
    val settings = task.settings.takeIf { task.engine == "onnxruntime" }
    val spinning = settings?.spinning == true
    val others = if (settings == null || settings.providers == Settings().providers) "" else ", on ${settings.providers.joinToString(" and ")}"
    return ConfigurationRecord(
        artifact.file + others + if (spinning) ", spinning threads" else "",
        artifact.target, artifact.form, artifact.precision, task.engine, task.threads, artifact.file, spinning, settings?.providers,
    )
}

/** Returns a percentile, interpolated between the two nearest values as numpy does. */
internal fun percentile(values: List<Double>, percent: Int): Double {
    val sorted = values.sorted()
    val position = percent / 100.0 * (sorted.size - 1)
    val below = sorted[position.toInt()]
    return below + (position - position.toInt()) * (sorted[minOf(position.toInt() + 1, sorted.size - 1)] - below)
}
