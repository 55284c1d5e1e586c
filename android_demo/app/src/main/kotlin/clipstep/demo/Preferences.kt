package clipstep.demo

import android.content.Context
import android.content.SharedPreferences
import clipstep.runtime.Engine

/** The numbers of threads that a phone can run. */
internal val THREADS = 1..Runtime.getRuntime().availableProcessors()

/** Percentages of earlier probabilities in a prediction's; see `StepModel.stream`, which takes less than 100. */
internal val SMOOTHINGS = 0..90 step 10

/** How many of the likeliest classes may be shown. */
internal val TOPS = 1..10

/**
 * What the user chose on the settings screen: an [engine], for the bundles that have an artifact for it; how many [threads] it has; the [smoothing] of
 * predictions in percent; and how many of the likeliest classes are shown, [top].
 */
data class Preferences(val engine: String = presentEngines().firstOrNull() ?: "onnxruntime", val threads: Int = 1, val smoothing: Int = 50, val top: Int = 3)

private fun presentEngines(): List<String> = Engine.all.filter { it.isPresent }.map { it.id }

/** Keeps [Preferences] from one start to the next. A value that this app or this phone cannot use counts as not chosen. */
internal class PreferenceStore(context: Context) {
    private val stored: SharedPreferences = context.getSharedPreferences("settings", Context.MODE_PRIVATE)

    var value: Preferences
        get() {
            val usual = Preferences()
            return Preferences(
                valid("engine", presentEngines(), usual.engine),
                valid("threads", THREADS, usual.threads),
                valid("smoothing", SMOOTHINGS, usual.smoothing),
                valid("top", TOPS, usual.top),
            )
        }
        set(value) = stored.edit().putString("engine", value.engine).putInt("threads", value.threads).putInt("smoothing", value.smoothing)
            .putInt("top", value.top).apply()

    private fun <T> valid(key: String, values: Iterable<T>, usual: T): T = values.firstOrNull { it == stored.all[key] } ?: usual
}
