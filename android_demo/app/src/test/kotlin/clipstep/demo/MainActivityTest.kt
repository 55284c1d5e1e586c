package clipstep.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.pm.FeatureInfo
import android.content.pm.PackageManager
import android.content.res.Configuration
import android.graphics.Color
import android.graphics.Insets
import android.graphics.Rect
import android.graphics.drawable.ColorDrawable
import android.net.Uri
import android.os.Looper
import android.provider.Settings
import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.Button
import android.widget.TextView
import clipstep.runtime.Ranked
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
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
class MainActivityTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private var controller: ActivityController<MainActivity>? = null

    @After
    fun end() {
        controller?.takeIf { it.get().isDestroyed.not() }?.run { pause().stop().destroy() }
    }

    private fun start(allowed: Boolean = true, asked: Boolean = false): Activity {
        if (allowed) shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        if (!allowed && asked) answer(PackageManager.PERMISSION_DENIED)
        return requireNotNull(controller).get()
    }

    private fun answer(result: Int) =
        requireNotNull(controller).get().onRequestPermissionsResult(1, arrayOf(Manifest.permission.CAMERA), intArrayOf(result))

    @Test
    fun `the first start proves the golden steps, and the camera's frames give what Python predicts`() {
        val activity = start()
        activity.awaitText(R.id.check, "This phone computes the right numbers: 16 golden steps")
        activity.awaitText(R.id.speed, "0 frames missed")
        await("the last prediction") { application.sources.last().given == Prepared.frames.size }
        await("the picture") { activity.view<android.widget.ImageView>(R.id.preview).drawable != null }
        val row = activity.view<ViewGroup>(R.id.rows).getChildAt(0)
        val (label, percent) = expected()
        activity.awaitText(R.id.speed, "times real time")
        await("$label $percent, not ${row.contentDescription}", 10) { row.contentDescription.toString() == "$label, %.0f percent".format(percent) }
        assertTrue(activity.text(R.id.what), "step.onnx (lowered, for any) in onnxruntime, 1 thread" in activity.text(R.id.what))
    }

    /** Python's probabilities, each halfway between the one before and its own. */
    private fun expected(): Pair<String, Float> {
        val (steps, classes) = Prepared.shape("stream.probabilities")
        val values = Prepared.floats("stream.probabilities")
        val smooth = (1 until steps).fold(values.take(classes)) { before, step -> List(classes) { 0.5f * before[it] + 0.5f * values[step * classes + it] } }
        val best = smooth.indices.maxByOrNull { smooth[it] } ?: 0
        return listOf("Fight", "NoFight")[best] to smooth[best] * 100
    }

    @Test
    fun `the check is remembered, and made again for another engine's choice`() {
        start().awaitText(R.id.check, "right numbers")
        requireNotNull(controller).pause().stop().destroy()
        val again = start()
        await("loaded") { "step.onnx" in again.text(R.id.what) }
        assertTrue(again.text(R.id.check), "right numbers" in again.text(R.id.check))
    }

    @Test
    fun `a refused camera is a sentence and a button, and a later yes starts it`() {
        val activity = start(allowed = false, asked = true)
        activity.awaitText(R.id.check, "right numbers")
        activity.awaitText(R.id.lack_text, "The app is not allowed to use it. Allow it, or choose a video below.")
        assertEquals("The camera is off", activity.text(R.id.lack_title))
        assertEquals("Allow camera", activity.text(R.id.lack_action))
        assertTrue(application.sources.isEmpty())
        activity.drawTo("refused")
        shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        answer(PackageManager.PERMISSION_GRANTED)
        activity.awaitText(R.id.speed, "times real time")
        assertEquals(View.GONE, activity.view<View>(R.id.lack).visibility)
    }

    @Test
    fun `nothing runs in the background`() {
        val activity = start()
        await("frames") { application.sources.isNotEmpty() && application.sources.last().given > 3 }
        requireNotNull(controller).pause()
        val source = application.sources.last()
        assertFalse("paused, but seen beside another app", source.stopped)
        requireNotNull(controller).stop()
        assertTrue(source.stopped)
        Thread.sleep(100)
        val given = source.given
        Thread.sleep(200)
        assertEquals(given, source.given)
        requireNotNull(controller).restart().start().resume()
        await("another source") { application.sources.last() !== source && application.sources.last().given > 3 }
        assertNotNull(activity)
    }

    @Test
    fun `a camera that slows down in the dark has missed nothing`() {
        application.times = { 1 + (if (it < 30) it else 2 * it - 30) * 33_366_700L } // 30 frames a second, then 15.
        val activity = start()
        await("all frames") { application.sources.lastOrNull()?.given == Prepared.frames.size }
        activity.awaitText(R.id.speed, "times real time, 0 frames missed")
    }

    @Test
    fun `a gap after which predictions start anew is said`() {
        application.times = { 1 + it * 33_366_700L + if (it < 40) 0 else 2_000_000_000 }
        val activity = start()
        await("all frames") { application.sources.lastOrNull()?.given == Prepared.frames.size }
        activity.awaitText(R.id.speed, "Gaps of more than 16 frames, after which predictions started anew: 1.")
    }

    @Test
    fun `a pause in a video is cut out, and said`() {
        application.times = { 1 + it * 33_366_700L + if (it < 40) 0 else 2_000_000_000 }
        val activity = start(allowed = false)
        activity.awaitText(R.id.check, "right numbers")
        activity.view<Button>(R.id.video).performClick()
        shadowOf(activity).receiveResult(shadowOf(activity).nextStartedActivityForResult.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/1")))
        activity.awaitText(R.id.speed, "Pauses of more than 1 s, cut out of the video: 1.")
        activity.awaitText(R.id.speed, "The video has ended.")
        val (label, percent) = expected() // Those of the video without the pause.
        assertEquals("$label, %.0f percent".format(percent), activity.view<ViewGroup>(R.id.rows).getChildAt(0).contentDescription.toString())
    }

    @Test
    fun `a bundle with which the app ended is not tried again by itself, and may be chosen`() {
        application.getSharedPreferences("demo", 0).edit().putString("attempt", "demo.clipstep, onnxruntime").commit()
        val activity = start()
        activity.awaitText(R.id.message, "The app ended while it ran demo.clipstep, onnxruntime. That is not tried again by itself: touch Models to choose one.")
        requireNotNull(controller).pause().stop().destroy()
        val again = start()
        again.awaitText(R.id.message, "The app ended while it ran demo.clipstep") // Nor at a later start.
        assertTrue(application.sources.isEmpty())
        again.view<Button>(R.id.bundles).performClick()
        val asked = shadowOf(again).nextStartedActivityForResult.intent
        shadowOf(again).receiveResult(asked, Activity.RESULT_OK, Intent().putExtra(BundlesActivity.KEY_BUNDLE, "demo.clipstep"))
        again.awaitText(R.id.what, "step.onnx")
        requireNotNull(controller).pause().stop().destroy()
        start().awaitText(R.id.speed, "times real time")
    }

    @Test
    fun `a camera that Android does not ask for any more leads to its settings`() {
        val activity = start(allowed = false, asked = true)
        val rationale = { shown: Boolean -> shadowOf(application.packageManager).setShouldShowRequestPermissionRationale(Manifest.permission.CAMERA, shown) }
        fun refusedAgain(): Intent? {
            activity.view<Button>(R.id.lack_action).performClick()
            answer(PackageManager.PERMISSION_DENIED)
            return generateSequence { shadowOf(activity).nextStartedActivity }.firstOrNull { it.action == Settings.ACTION_APPLICATION_DETAILS_SETTINGS }
        }
        shadowOf(activity).clearNextStartedActivities()
        rationale(true)
        assertNull(refusedAgain())
        rationale(false)
        assertEquals(Uri.parse("package:clipstep.demo"), refusedAgain()?.data)
    }

    @Test
    fun `a phone needs no camera, and only who may use adb starts a benchmark`() {
        val facts = application.packageManager.getPackageInfo("clipstep.demo", PackageManager.GET_CONFIGURATIONS or PackageManager.GET_ACTIVITIES)
        val required = facts.reqFeatures.orEmpty().associate { it.name to (it.flags and FeatureInfo.FLAG_REQUIRED != 0) }
        assertEquals(mapOf("android.hardware.camera" to false, "android.hardware.camera.autofocus" to false, "android.hardware.camera.any" to false), required)
        val guarded = facts.activities.orEmpty().filter { it.exported }.associate { it.name.substringAfterLast('.') to it.permission }
        assertEquals(mapOf("MainActivity" to null, "BenchActivity" to "android.permission.DUMP"), guarded)
    }

    @Test
    fun `turning the screen keeps the model and starts the stream anew`() {
        start().awaitText(R.id.speed, "times real time")
        val before = application.sources.last()
        RuntimeEnvironment.setQualifiers("+land")
        requireNotNull(controller).configurationChange(Configuration(application.resources.configuration))
        val turned = requireNotNull(controller).get()
        assertTrue(before.stopped)
        assertTrue(turned.text(R.id.what), "step.onnx" in turned.text(R.id.what)) // At once: nothing was loaded again.
        await("frames") { application.sources.last() !== before && application.sources.last().given > 3 }
        turned.awaitText(R.id.speed, "times real time")
        turned.drawTo("landscape")
        val rows = turned.view<ViewGroup>(R.id.rows)
        val cut = List(2) { requireNotNull(rows.getChildAt(it).findViewById<TextView>(R.id.label)).layout.run { getEllipsisCount(lineCount - 1) } }
        assertEquals("characters cut off of the labels", listOf(0, 0), cut)
    }

    @Test
    fun `a video goes the camera's way, and its end is said`() {
        val activity = start(allowed = false)
        activity.awaitText(R.id.check, "right numbers")
        activity.view<Button>(R.id.video).performClick()
        val asked = shadowOf(activity).nextStartedActivityForResult
        assertEquals("video/*", asked.intent.type)
        shadowOf(activity).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/1")))
        activity.awaitText(R.id.speed, "The video has ended.")
        assertEquals("video content://videos/1", application.sources.last().name)
        assertTrue(activity.text(R.id.speed), "0 frames missed" in activity.text(R.id.speed))
        assertTrue(activity.text(R.id.speed), activity.text(R.id.speed).substringBefore(" ms").toDouble() in 0.1..10_000.0) // No clock that stands still.
        assertEquals("Camera", activity.text(R.id.camera))
    }

    @Test
    fun `touching turn camera goes to the next one`() {
        val activity = start()
        await("frames") { application.sources.isNotEmpty() }
        assertEquals("Turn camera", activity.text(R.id.camera))
        activity.view<Button>(R.id.camera).performClick()
        await("the other camera") { application.sources.last().name == "camera 1" && application.sources.last().given > 0 }
        assertTrue(application.sources.first().stopped)
    }

    @Test
    fun `no camera is said in the picture's place until a video is chosen, and a picture that cannot be decoded below it`() {
        application.real = true
        val activity = start()
        activity.awaitText(R.id.lack_title, "No camera")
        requireNotNull(controller).pause().stop().restart().start().resume()
        await("it is looked for again") { activity.view<View>(R.id.lack).visibility == View.VISIBLE }
        assertEquals("one button to choose a video", View.GONE, activity.view<View>(R.id.video).visibility)
        assertEquals("none for a camera", View.GONE, activity.view<View>(R.id.camera).visibility)
        activity.drawTo("no-camera")
        activity.view<Button>(R.id.lack_action).performClick()
        val asked = shadowOf(activity).nextStartedActivityForResult
        assertEquals("video/*", asked.intent.type)
        shadowOf(activity).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/broken")))
        activity.awaitText(R.id.message, "The video cannot be decoded")
        assertEquals(View.GONE, activity.view<View>(R.id.lack).visibility)
        assertEquals(View.VISIBLE, activity.view<View>(R.id.video).visibility)
        assertEquals(Looper.getMainLooper().thread, Thread.currentThread())
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `without a model the screen says how to get one, and goes on saying it`() {
        BundleStore(application).run { unpack(); delete(find("demo")) }
        val activity = start()
        activity.awaitText(R.id.lack_title, "No model yet")
        requireNotNull(controller).pause().stop().restart().start().resume()
        shadowOf(Looper.getMainLooper()).idle()
        assertEquals(View.VISIBLE, activity.view<View>(R.id.lack).visibility)
        assertTrue(activity.text(R.id.lack_text), "NAME.clipstep.zip" in activity.text(R.id.lack_text))
        activity.drawTo("no-model")
        assertEquals("no black around the sheet", application.getColor(R.color.ground), activity.ground())
        assertEquals("the system's icons are dark", 8, requireNotNull(activity.window.insetsController).systemBarsAppearance and 8)
        shadowOf(activity).clearNextStartedActivities()
        activity.view<Button>(R.id.lack_action).performClick()
        val asked = shadowOf(activity).nextStartedActivityForResult.intent
        assertEquals(listOf("application/zip", "application/octet-stream"), asked.getStringArrayExtra(Intent.EXTRA_MIME_TYPES).orEmpty().toList())
        assertTrue(application.sources.isEmpty())
    }

    private fun Activity.ground() = (view<View>(R.id.root).background as ColorDrawable).color

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `the primary action is seen below three long names at twice the font size`() {
        RuntimeEnvironment.setFontScale(2f)
        val activity = start(allowed = false, asked = true)
        activity.awaitText(R.id.check, "right numbers")
        MainViews(activity).render(Screen(top = listOf("CleanAndJerk", "HandstandPushups", "PlayingDaf").mapIndexed { i, name -> Ranked(name, 0.5f / (i + 1)) }))
        activity.view<View>(R.id.timeline).visibility = View.VISIBLE // As after a prediction.
        activity.drawTo("small-font-2-action")
        val at = Rect().also { activity.view<View>(R.id.video).getDrawingRect(it) }
        val sheet = activity.view<ViewGroup>(R.id.sheet).apply { offsetDescendantRectToMyCoords(activity.view(R.id.video), at) }
        assertTrue("$at in ${sheet.height}", at.bottom <= sheet.height)
        assertEquals("the picture's ground", Color.BLACK, activity.ground())
        assertEquals("the system's icons are light", 0, requireNotNull(activity.window.insetsController).systemBarsAppearance and 8)
    }

    @Test
    fun `a video goes on while the screen is turned`() {
        val activity = start(allowed = false)
        activity.awaitText(R.id.check, "right numbers")
        activity.view<Button>(R.id.video).performClick()
        shadowOf(activity).receiveResult(shadowOf(activity).nextStartedActivityForResult.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/1")))
        activity.awaitText(R.id.speed, "times real time")
        val (source, speed) = application.sources.last() to activity.text(R.id.speed)
        RuntimeEnvironment.setQualifiers("+land")
        requireNotNull(controller).configurationChange(Configuration(application.resources.configuration))
        val turned = requireNotNull(controller).get()
        assertTrue(speed, turned.text(R.id.speed).isNotEmpty())
        turned.awaitText(R.id.speed, "The video has ended.")
        assertTrue(application.sources.last() === source && !source.stopped)
        val (label, percent) = expected()
        assertEquals("$label, %.0f percent".format(percent), turned.view<ViewGroup>(R.id.rows).getChildAt(0).contentDescription.toString())
    }

    @Test
    fun `content keeps clear of the system's bars`() {
        val activity = start()
        val bars = Insets.of(1, 48, 2, 24)
        val root = activity.view<View>(R.id.root)
        root.dispatchApplyWindowInsets(WindowInsets.Builder().setInsets(WindowInsets.Type.systemBars(), bars).build())
        assertEquals(Insets.of(1, 48, 2, 0), Insets.of(root.paddingLeft, root.paddingTop, root.paddingRight, root.paddingBottom))
        assertEquals("the results scroll under the bar, and end above it", 24, activity.view<View>(R.id.panel).paddingBottom)
    }

    @Test
    fun `a screen reader is told politely of another class, and not of another percentage`() {
        val activity = start()
        activity.awaitText(R.id.speed, "times real time")
        await("the last frame") { application.sources.lastOrNull()?.given == Prepared.frames.size }
        val views = MainViews(activity)
        fun show(label: String, probability: Float) = views.render(Screen(top = listOf(Ranked(label, probability))))
        show("Fight", 0.5f)
        val label = activity.view<ViewGroup>(R.id.rows).getChildAt(0).view<TextView>(R.id.label)
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, label.accessibilityLiveRegion)
        val said = mutableListOf<String>()
        label.addTextChangedListener(object : TextWatcher {
            override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit

            override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit

            override fun afterTextChanged(text: Editable) {
                said += text.toString()
            }
        })
        show("Fight", 0.6f)
        show("Calm", 0.7f)
        show("Calm", 0.8f)
        assertEquals(listOf("Calm"), said)
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `long names wrap, nothing that is touched is smaller than 48 dp, and all is in the picture at twice the font size`() {
        RuntimeEnvironment.setFontScale(2f)
        val activity = start()
        await("the last frame") { application.sources.lastOrNull()?.given == Prepared.frames.size }
        activity.awaitText(R.id.speed, "times real time")
        requireNotNull(controller).pause().stop() // No prediction of the stream comes after the names.
        val names = listOf("CleanAndJerk", "HandstandPushups", "PlayingDaf")
        MainViews(activity).render(Screen(top = names.mapIndexed { i, name -> Ranked(name, 0.5f / (i + 1)) }))
        activity.drawTo("small-font-2")
        val rows = activity.view<ViewGroup>(R.id.rows)
        for ((i, name) in names.withIndex()) {
            val layout = rows.getChildAt(i).view<TextView>(R.id.label).layout
            assertEquals(name, layout.text.toString().replace("\u200B", ""))
            assertEquals(0, layout.getEllipsisCount(layout.lineCount - 1))
            val ends = (0 until layout.lineCount - 1).map { layout.text[layout.getLineEnd(it) - 1] }
            if (i > 0) assertTrue("$name ends its lines with $ends", ends.all { it == '\u200B' })
        }
        val touched = listOf(R.id.video, R.id.camera, R.id.bundles, R.id.bench, R.id.settings, R.id.more, R.id.expand).map { activity.view<View>(it) }
        val least = 48 * activity.resources.displayMetrics.density
        for (view in touched) {
            val at = Rect().also { view.getDrawingRect(it) }
            activity.view<ViewGroup>(R.id.root).offsetDescendantRectToMyCoords(view, at)
            assertTrue("$view: $at", at.width() >= least && at.height() >= least && at.left >= 0 && at.right <= activity.view<View>(R.id.root).width)
        }
    }

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone read from right to left`() {
        picture("phone-rtl")
        val activity = requireNotNull(controller).get()
        assertTrue(activity.view<View>(R.id.video).left > activity.view<View>(R.id.camera).left)
        val row = activity.view<ViewGroup>(R.id.rows).getChildAt(0)
        assertTrue(row.view<View>(R.id.label).left > row.view<View>(R.id.percent).left)
    }

    @Test
    fun `text is read easily on its ground, by day and by night, in the app's colours and in the user's`() {
        val pairs = listOf(
            R.color.text to R.color.ground, R.color.quiet to R.color.ground, R.color.text to R.color.raised, R.color.quiet to R.color.raised,
            R.color.accent to R.color.ground, R.color.on_accent to R.color.accent, R.color.on_tonal to R.color.tonal, R.color.warning to R.color.warning_ground,
        )
        for (night in listOf("notnight", "night")) {
            RuntimeEnvironment.setQualifiers("+$night")
            for ((text, ground) in pairs) {
                val contrast = contrast(application.getColor(text), application.getColor(ground))
                assertTrue("$night, ${application.resources.getResourceEntryName(text)}: $contrast", contrast >= 4.5)
            }
            val own = application.getColor(if (night == "night") android.R.color.system_accent1_200 else android.R.color.system_accent1_600)
            assertEquals("the user's palette", own, application.getColor(R.color.accent))
        }
    }

    /** As WCAG 2 defines it. */
    private fun contrast(text: Int, ground: Int): Double {
        val (light, dark) = listOf(text, ground).map { Color.luminance(it) + 0.05 }.sortedDescending()
        return light / dark
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `the sheet of results takes most of a phone's screen after a touch, and says which way it goes`() {
        val activity = start()
        activity.awaitText(R.id.speed, "times real time")
        val sheet = activity.view<Sheet>(R.id.sheet)
        val before = sheet.height
        assertEquals("Show more", activity.view<View>(R.id.expand).contentDescription)
        activity.view<View>(R.id.expand).performClick()
        activity.view<View>(R.id.more).performClick()
        activity.drawTo("phone-details")
        assertTrue("$before, then ${sheet.height}", sheet.height > before * 1.4)
        assertEquals("Show less", activity.view<View>(R.id.expand).contentDescription)
        assertEquals(View.VISIBLE, activity.view<View>(R.id.details).visibility)
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `a small screen in light`() = picture("small-light")

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-night-hdpi")
    fun `a small screen in dark`() = picture("small-dark")

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone in light`() = picture("phone-light")

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-night-xhdpi")
    fun `a phone in dark`() = picture("phone-dark")

    @Test
    @Config(qualifiers = "w1280dp-h800dp-xlarge-land-notnight-mdpi")
    fun `a tablet in light`() = picture("tablet-light")

    @Test
    @Config(qualifiers = "w1280dp-h800dp-xlarge-land-night-mdpi")
    fun `a tablet in dark`() = picture("tablet-dark")

    private fun picture(name: String) {
        val activity = start()
        await("the last frame") { application.sources.lastOrNull()?.given == Prepared.frames.size }
        await("the picture") { activity.view<android.widget.ImageView>(R.id.preview).drawable != null }
        activity.awaitText(R.id.speed, "times real time")
        activity.drawTo(name)
    }
}
