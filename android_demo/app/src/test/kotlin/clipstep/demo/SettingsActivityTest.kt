package clipstep.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.res.Configuration
import android.graphics.Rect
import android.os.Bundle
import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.view.ViewGroup
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.SeekBar
import android.widget.TextView
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class SettingsActivityTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private val stored = application.getSharedPreferences("settings", 0)
    private var main: ActivityController<MainActivity>? = null
    private val both = Screen(engines = listOf("onnxruntime", "executorch"), classes = 101)

    @After
    fun end() {
        main?.pause()?.stop()?.destroy()
    }

    private fun start(screen: Screen = both): ActivityController<SettingsActivity> =
        Robolectric.buildActivity(SettingsActivity::class.java, SettingsActivity.of(application, screen)).setup()

    private fun Activity.slider(id: Int): SeekBar = view<View>(id).view(R.id.bar)

    private fun Activity.label(id: Int): String = view<View>(id).view<TextView>(R.id.label).text.toString()

    /** Moves a slider as a user does; a screen reader does it so. */
    private fun Activity.move(id: Int, progress: Int) {
        val to = Bundle().apply { putFloat(AccessibilityNodeInfo.ACTION_ARGUMENT_PROGRESS_VALUE, progress.toFloat()) }
        assertTrue(slider(id).performAccessibilityAction(android.R.id.accessibilityActionSetProgress, to))
    }

    private fun Activity.choices(): List<RadioButton> = view<RadioGroup>(R.id.engines).run { List(childCount) { getChildAt(it) as RadioButton } }

    private fun Activity.labels() = listOf(R.id.top, R.id.smoothing, R.id.threads).map { label(it) }

    private fun startMain(): Activity {
        shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        return Robolectric.buildActivity(MainActivity::class.java).setup().also { main = it }.get()
    }

    /** Opens the settings from the main screen, and comes back after what is done there. */
    private fun Activity.inSettings(does: Activity.() -> Unit) {
        await("the last frame") { this@SettingsActivityTest.application.sources.lastOrNull()?.given == Prepared.frames.size }
        shadowOf(this).clearNextStartedActivities()
        view<View>(R.id.settings).performClick()
        requireNotNull(main).pause().stop()
        val settings = Robolectric.buildActivity(SettingsActivity::class.java, shadowOf(this).nextStartedActivity).setup()
        settings.get().does()
        settings.pause().stop().destroy()
        requireNotNull(main).restart().start().resume()
    }

    /** The likeliest class and its probability in thousandths, of Python's, where [smoothing] is the weight of those before. */
    private fun expected(smoothing: Float): Pair<String, Int> {
        val (steps, classes) = Prepared.shape("stream.probabilities")
        val values = Prepared.floats("stream.probabilities")
        val last = (1 until steps).fold(values.take(classes)) { before, step -> List(classes) { smoothing * before[it] + (1 - smoothing) * values[step * classes + it] } }
        val best = last.indices.maxByOrNull { last[it] } ?: 0
        return listOf("Fight", "NoFight")[best] to (last[best] * 1000).toInt()
    }

    private fun Activity.shown(): List<Pair<String, Int>> = view<ViewGroup>(R.id.rows).run { (0 until childCount).map { getChildAt(it) } }
        .filter { it.visibility == View.VISIBLE }.map { it.view<TextView>(R.id.label).text.toString().replace("\u200B", "") to it.view<ProgressBar>(R.id.bar).progress }

    @Test
    fun `the next predictions are smoothed, and as many are shown, as was chosen, and the model is not loaded anew`() {
        assertEquals("these can be told apart", 3, listOf(0f, 0.5f, 0.9f).map(::expected).toSet().size)
        val activity = startMain()
        activity.awaitText(R.id.speed, "times real time")
        val loads = mutableListOf<String>()
        activity.view<TextView>(R.id.what).addTextChangedListener(texts { loads += it })
        for ((progress, smoothing) in listOf(0 to 0f, 9 to 0.9f, 5 to 0.5f)) {
            val before = application.sources.last()
            activity.inSettings { move(R.id.smoothing, progress) }
            await("frames") { application.sources.last() !== before && application.sources.last().given == Prepared.frames.size }
            await("${expected(smoothing)}, not ${activity.shown()}", 10) { activity.shown().firstOrNull() == expected(smoothing) }
            assertEquals(2, activity.shown().size)
        }
        activity.inSettings { move(R.id.top, 0) }
        await("one result, not ${activity.shown()}", 10) { activity.shown().size == 1 }
        assertEquals(emptyList<String>(), loads.filter { it.isEmpty() })
    }

    private fun texts(told: (String) -> Unit) = object : TextWatcher {
        override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit

        override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit

        override fun afterTextChanged(text: Editable) = told(text.toString())
    }

    @Test
    fun `threads are used when the user comes back, and an engine that the model is not made for cannot be chosen`() {
        val activity = startMain()
        activity.awaitText(R.id.what, "in onnxruntime, 1 thread")
        activity.inSettings {
            assertEquals(listOf("onnxruntime", "executorch\nThis model is not made for it"), choices().map { it.text.toString() })
            assertEquals(listOf(true, false), choices().map { it.isEnabled })
            assertEquals("as many as the model has classes", "Results shown: 2", label(R.id.top))
            assertEquals(1, slider(R.id.top).max)
            move(R.id.threads, 1)
        }
        activity.awaitText(R.id.what, "in onnxruntime, 2 threads")
        activity.awaitText(R.id.speed, "times real time")
        requireNotNull(main).pause().stop().destroy()
        startMain().awaitText(R.id.what, "in onnxruntime, 2 threads") // And so after a restart.
    }

    @Test
    fun `an engine that is not in the app is told from one that the model is not made for`() {
        fun said(isPresent: Boolean, engines: List<String>?) = whyNot("executorch", isPresent, engines)?.let { application.getString(it, "executorch") }
        val onnx = listOf("onnxruntime")
        assertEquals(listOf("executorch\nNot in this app", "executorch\nNot in this app"), listOf(onnx, null).map { said(false, it) })
        assertEquals(listOf("executorch\nThis model is not made for it", null, null), listOf(onnx, onnx + "executorch", null).map { said(true, it) })
    }

    @Test
    fun `a chosen engine stays chosen while a model is shown that is not made for it`() {
        start().get().choices()[1].performClick()
        val activity = startMain()
        activity.awaitText(R.id.what, "in onnxruntime, 1 thread")
        activity.inSettings {
            assertEquals(listOf(true, false), choices().map { it.isChecked }) // What runs.
            move(R.id.smoothing, 1)
        }
        val again = start().get()
        assertEquals(listOf(false, true), again.choices().map { it.isChecked })
        assertEquals(listOf(true, true), again.choices().map { it.isEnabled })
    }

    @Test
    fun `settings are kept, also when the screen is turned, until they are reset`() {
        val first = start().get()
        assertEquals(listOf("Results shown: 3", "Smoothing: 50 %", "Threads: 1"), first.labels())
        first.move(R.id.top, 4)
        first.move(R.id.smoothing, 7)
        first.move(R.id.threads, 1)
        first.choices()[1].performClick()
        val chosen = listOf("Results shown: 5", "Smoothing: 70 %", "Threads: 2")
        assertEquals(chosen, first.labels())
        val second = start()
        assertEquals(chosen, second.get().labels())
        RuntimeEnvironment.setQualifiers("+land")
        second.configurationChange(Configuration(application.resources.configuration))
        val turned = second.get()
        assertEquals(chosen, turned.labels())
        assertEquals(listOf(false, true), turned.choices().map { it.isChecked })
        turned.view<View>(R.id.reset).performClick()
        assertEquals(listOf("Results shown: 3", "Smoothing: 50 %", "Threads: 1"), turned.labels())
        assertEquals(listOf(true, false), turned.choices().map { it.isChecked })
        assertEquals(Preferences("onnxruntime", 1, 50, 3), PreferenceStore(application).value)
    }

    @Test
    fun `stored values that cannot be used count as not chosen`() {
        stored.edit().putString("engine", "tensorrt").putInt("threads", 0).putInt("smoothing", 100).putInt("top", 11).commit()
        assertEquals(Preferences("onnxruntime", 1, 50, 3), PreferenceStore(application).value)
        stored.edit().putInt("engine", 1).putString("threads", "2").putFloat("smoothing", 0.5f).putInt("top", 2).putInt("threads", 1 + Runtime.getRuntime().availableProcessors()).commit()
        assertEquals(Preferences("onnxruntime", 1, 50, 2), PreferenceStore(application).value)
        assertEquals("Results shown: 2", start().get().label(R.id.top))
        startMain().awaitText(R.id.what, "in onnxruntime, 1 thread")
    }

    @Test
    fun `an engine with which the app ended is not used again by itself`() {
        application.getSharedPreferences("demo", 0).edit().putString("attempt", "demo.clipstep, executorch").commit()
        stored.edit().putString("engine", "executorch").putInt("threads", 2).putInt("top", 1).commit()
        val activity = startMain()
        activity.awaitText(R.id.message, "The app ended while it ran demo.clipstep, executorch.")
        assertEquals(Preferences("onnxruntime", 1, 50, 1), PreferenceStore(application).value)
    }

    @Test
    fun `a screen reader says names and values, and moves the sliders`() {
        val activity = start().get()
        fun said(id: Int) = activity.slider(id).run { "$contentDescription: $stateDescription" }
        assertEquals(listOf("Results shown: 3", "Smoothing: 50 %", "Threads: 1"), listOf(R.id.top, R.id.smoothing, R.id.threads).map(::said))
        assertTrue(activity.slider(R.id.smoothing).performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_FORWARD, null))
        assertEquals("Smoothing: 60 %", said(R.id.smoothing))
        assertEquals(60, PreferenceStore(application).value.smoothing)
        val info = AccessibilityNodeInfo().also { activity.slider(R.id.smoothing).onInitializeAccessibilityNodeInfo(it) }
        assertEquals("60 %", info.stateDescription)
        val headings = listOf(R.id.title).filter { activity.view<View>(it).isAccessibilityHeading }
        assertEquals(listOf(R.id.title), headings)
    }

    @Test
    fun `a value that a slider has no choice of cannot be moved`() {
        val activity = start(Screen(engines = listOf("onnxruntime"), classes = 1)).get()
        assertFalse(activity.slider(R.id.top).isEnabled)
        assertEquals("Results shown: 1", activity.label(R.id.top))
    }

    @Test
    fun `about is reached from here`() {
        val activity = start().get()
        activity.view<View>(R.id.about).performClick()
        assertEquals(AboutActivity::class.java.name, shadowOf(activity).nextStartedActivity.component?.className)
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone in light`() = start(Screen(engines = listOf("onnxruntime"), classes = 101)).get().drawTo("settings-light")

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-night-xhdpi")
    fun `a phone in dark`() = start().get().drawTo("settings-dark")

    @Test
    @Config(qualifiers = "w1280dp-h800dp-xlarge-land-notnight-mdpi")
    fun `a tablet`() = start().get().drawTo("settings-tablet")

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone read from right to left`() {
        val activity = start().get()
        activity.drawTo("settings-rtl")
        assertTrue(activity.view<View>(R.id.back).left > activity.view<View>(R.id.title).left)
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `nothing is cut off, and what is touched is 48 dp at least, on a small screen at twice the font size`() {
        RuntimeEnvironment.setFontScale(2f)
        val activity = start(Screen(engines = listOf("onnxruntime"), classes = 101)).get()
        activity.drawTo("settings-small-font-2")
        val root = activity.view<ViewGroup>(R.id.root)
        val touched = listOf(R.id.back, R.id.reset, R.id.about).map { activity.view<View>(it) } + activity.choices() + listOf(R.id.top, R.id.smoothing, R.id.threads).map { activity.slider(it) }
        val least = 48 * activity.resources.displayMetrics.density
        for (view in touched) {
            val at = Rect().also { view.getDrawingRect(it) }
            root.offsetDescendantRectToMyCoords(view, at)
            assertTrue("$view: $at", at.width() >= least && at.height() >= least && at.left >= 0 && at.right <= root.width)
        }
        root.scrollTo(0, root.getChildAt(0).height)
        activity.drawTo("settings-small-font-2-end")
    }
}
