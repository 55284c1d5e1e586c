package clipstep.demo

import android.app.Activity
import android.content.Context
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.LayoutInflater
import android.view.View
import android.widget.Button
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.SeekBar
import android.widget.TextView
import clipstep.runtime.Engine

/** Returns the words for why an engine cannot be chosen, where the bundle in use is for [engines]; null if it can. */
internal fun whyNot(engine: String, isPresent: Boolean, engines: List<String>?): Int? = when {
    !isPresent -> R.string.engine_absent
    engines != null && engine !in engines -> R.string.engine_other
    else -> null
}

/** The settings. Each is kept as soon as it is touched, and the main screen goes on with them when the user comes back. */
class SettingsActivity : Activity() {
    private lateinit var store: PreferenceStore
    private lateinit var sliders: List<Slider>

    /** The engines that the bundle in use has an artifact for; null if there is no bundle. */
    private val engines: List<String>? by lazy { intent.getStringArrayExtra(KEY_ENGINES)?.toList() }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.settings)
        showTop(R.string.settings)
        store = PreferenceStore(this)
        val tops = TOPS.first..TOPS.last.coerceAtMost(intent.getIntExtra(KEY_CLASSES, TOPS.last))
        sliders = listOf(
            Slider(R.id.threads, R.string.threads, THREADS, { it.threads }, { copy(threads = it) }, ::number),
            Slider(R.id.smoothing, R.string.smoothing, SMOOTHINGS, { it.smoothing }, { copy(smoothing = it) }) { getString(R.string.whole_percent, it) },
            Slider(R.id.top, R.string.top, tops, { it.top }, { copy(top = it) }, ::number),
        )
        view<Button>(R.id.reset).setOnClickListener {
            store.value = Preferences()
            render()
        }
        view<View>(R.id.about).setOnClickListener { startActivity(Intent(this, AboutActivity::class.java)) }
        render()
    }

    private fun number(value: Int): String = getString(R.string.number, value)

    private fun render() {
        for (slider in sliders) slider.show(store.value)
        val group = view<RadioGroup>(R.id.engines)
        group.setOnCheckedChangeListener(null)
        group.removeAllViews()
        for (engine in Engine.all) group.addView(choice(engine, group))
        group.setOnCheckedChangeListener { _, id -> store.value = store.value.copy(engine = group.view<View>(id).tag as String) }
    }

    private fun choice(engine: Engine, group: RadioGroup): View = (LayoutInflater.from(this).inflate(R.layout.choice, group, false) as RadioButton).apply {
        id = View.generateViewId()
        tag = engine.id
        val reason = whyNot(engine.id, engine.isPresent, engines)
        isEnabled = reason == null
        isChecked = engine.id == inUse()
        text = if (reason == null) engine.id else getString(reason, engine.id)
    }

    /** The engine that runs the bundle: see [engineFor]. */
    private fun inUse(): String = store.value.engine.let { wanted -> engines?.run { if (wanted in this) wanted else firstOrNull() } ?: wanted }

    /** A slider and its label, for a setting with these [values] at equal distances. */
    private inner class Slider(
        id: Int,
        private val name: Int,
        private val values: IntProgression,
        private val read: (Preferences) -> Int,
        private val change: Preferences.(Int) -> Preferences,
        private val words: (Int) -> String,
    ) : SeekBar.OnSeekBarChangeListener {
        private val bar = view<View>(id).view<SeekBar>(R.id.bar)
        private val label = view<View>(id).view<TextView>(R.id.label)

        init {
            bar.isSaveEnabled = false // What it shows is stored already.
            bar.max = (values.last - values.first) / values.step
            bar.isEnabled = bar.max > 0
            bar.setOnSeekBarChangeListener(this)
        }

        fun show(preferences: Preferences) {
            bar.progress = (read(preferences).coerceAtMost(values.last) - values.first) / values.step
            say()
        }

        /** A screen reader says the value in place of a percentage of the slider's length. */
        private fun say() {
            val value = words(at())
            label.text = getString(R.string.named_value, getString(name), value)
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) {
                bar.contentDescription = label.text
            } else {
                bar.contentDescription = getString(name)
                bar.stateDescription = value
            }
        }

        private fun at() = values.first + bar.progress * values.step

        override fun onProgressChanged(bar: SeekBar, progress: Int, fromUser: Boolean) {
            if (fromUser) store.value = store.value.change(at())
            say()
        }

        override fun onStartTrackingTouch(bar: SeekBar) = Unit

        override fun onStopTrackingTouch(bar: SeekBar) = Unit
    }

    companion object {
        private const val KEY_ENGINES = "engines"
        private const val KEY_CLASSES = "classes"

        /** Starts the settings for the bundle in use. */
        internal fun of(context: Context, screen: Screen): Intent = Intent(context, SettingsActivity::class.java).putExtra(KEY_ENGINES, screen.engines?.toTypedArray())
            .apply { screen.classes?.let { putExtra(KEY_CLASSES, it) } }
    }
}
