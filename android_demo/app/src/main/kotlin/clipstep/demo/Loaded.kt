package clipstep.demo

import android.content.Context
import android.content.SharedPreferences
import clipstep.runtime.Bundle
import clipstep.runtime.Engine
import clipstep.runtime.GoldenSteps
import clipstep.runtime.Interface
import clipstep.runtime.Progress
import clipstep.runtime.StepModel
import clipstep.runtime.checkGolden
import java.io.Closeable

/** A bundle that is loaded in an engine, its stream, and the sentence that says that it computes the golden steps. Used by one thread. */
internal class Loaded(
    val bundle: Bundle,
    val engine: String,
    val threads: Int,
    private val model: StepModel,
    val checked: String,
    preferences: Preferences,
) : Closeable {
    var recogniser = Recogniser(model, preferences)
        private set
    val spec: Interface get() = model.spec

    /** Starts the predictions anew, smoothed and as many as the user prefers. */
    fun use(preferences: Preferences) {
        recogniser.close()
        recogniser = Recogniser(model, preferences)
    }

    override fun toString(): String = "${bundle.manifest.name}: ${model.description}"

    override fun close() {
        recogniser.close()
        model.close()
    }
}

/** Returns the engines in this app that a bundle has an artifact for. */
internal fun enginesFor(bundle: Bundle): List<String> =
    Engine.all.filter { engine -> engine.isPresent && bundle.manifest.artifacts.any { it.target == engine.target } }.map { it.id }

/** Returns the engine in which a bundle runs here: [wanted], or the first one if the bundle has no artifact for that. */
internal fun engineFor(bundle: Bundle, wanted: String): String {
    val engines = enginesFor(bundle)
    val engine = if (wanted in engines) wanted else engines.firstOrNull() ?: wanted
    checkRuns(bundle, engine)
    return engine
}

/** Checks that a bundle has the artifact that is taken for an engine here. If not, the error says why. */
internal fun checkRuns(bundle: Bundle, engine: String) {
    val target = Engine.named(engine).target
    bundle.artifact(target, bundle.chosenPrecision(target))
}

/** What the app remembers from one start to the next. */
internal class Notes(context: Context) {
    private val notes: SharedPreferences = context.getSharedPreferences("demo", Context.MODE_PRIVATE)

    /** The name of the bundle that the main screen showed last, `NAME.clipstep`. */
    val bundle: String? get() = notes.getString("bundle", null)
    val engine: String get() = notes.getString("engine", null) ?: "onnxruntime"
    val threads: Int get() = notes.getInt("threads", 1)

    /** The [attempt] during which the app ended, if it did, until a bundle is [showed]. */
    val refused: String? get() = notes.getString("refused", null)

    fun showed(loaded: Loaded) = notes.edit().putString("bundle", loaded.bundle.path.name).putString("engine", loaded.engine)
        .putInt("threads", loaded.threads).remove("refused").apply()

    /** Sees whether the last process ended during an [attempt]; to be called before this process makes its first. */
    fun begin() {
        notes.getString("attempt", null)?.let { notes.edit().putString("refused", it).remove("attempt").apply() }
    }

    /** Runs an action that might end the app: an engine's native code may crash on a malformed artifact. */
    fun <T> attempt(bundle: Bundle, engine: String, action: () -> T): T {
        notes.edit().putString("attempt", attempt(bundle.path.name, engine)).commit() // Written before it goes on.
        try {
            return action()
        } finally {
            notes.edit().remove("attempt").apply()
        }
    }

    /** What an attempt is called. */
    fun attempt(name: String, engine: String): String = "$name, $engine"

    /** Checks the golden steps when a bundle is first run in an engine, and remembers the result, a sentence from [words]. */
    fun proven(bundle: Bundle, model: StepModel, engine: String, progress: Progress, words: (Int, Double) -> String): String {
        val key = "checked ${bundle.manifestSha256} $engine"
        notes.getString(key, null)?.let { return it }
        val golden = GoldenSteps.of(bundle)
        val errors = checkGolden(model, golden, progress = progress)
        return words(errors.steps, errors.relative).also { notes.edit().putString(key, it).apply() }
    }
}
