package clipstep.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.res.Configuration
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.ColorSpace
import android.graphics.Rect
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.os.Looper
import android.os.SystemClock
import android.view.Display
import android.view.KeyEvent
import android.view.MotionEvent
import android.view.Surface
import android.view.View
import android.view.ViewGroup
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.Button
import android.widget.ImageView
import android.widget.SeekBar
import clipstep.runtime.Ranked
import clipstep.runtime.StepModel
import java.time.Duration
import kotlin.math.sin
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** The controls of a video and the timeline on the main screen, with a decoder whose frames are scripted. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class, shadows = [FilmExtractor::class, FilmDecoder::class])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class PlayerTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private lateinit var controller: ActivityController<MainActivity>
    private val activity: Activity get() = controller.get()
    private val timeline: TimelineView get() = activity.view(R.id.timeline)
    private val seek: SeekBar get() = activity.view(R.id.seek)

    @Before
    fun begin() {
        Film.reset()
        application.getSharedPreferences("demo", 0).edit().putString("checked $manifest onnxruntime", "the right numbers, as another test proves").commit()
        application.real = true
    }

    @After
    fun end() {
        if (::controller.isInitialized && !activity.isDestroyed) controller.pause().stop().destroy()
    }

    private fun start(saved: Bundle? = null) {
        controller = Robolectric.buildActivity(MainActivity::class.java).run { if (saved == null) setup() else setup(saved) }
        activity.awaitText(R.id.check, "right numbers")
    }

    private fun choose() {
        activity.view<Button>(R.id.video).performClick()
        shadowOf(activity).receiveResult(shadowOf(activity).nextStartedActivityForResult.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/1")))
    }

    private fun awaitFrame(number: Int) = await("frame $number, not ${Film.shown.lastOrNull()}") { number in Film.shown }

    private fun described(id: Int) = activity.view<View>(id).contentDescription.toString()

    private fun touch(id: Int) = activity.view<View>(id).performClick()

    private fun settle() = repeat(20) {
        shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(50))
        Thread.sleep(5)
    }

    private fun background() {
        controller.pause().stop()
        settle()
    }

    private fun node(id: Int) = AccessibilityNodeInfo().also { activity.view<View>(id).onInitializeAccessibilityNodeInfo(it) }

    @Test
    fun `a camera has no controls of a video`() {
        application.real = false
        shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        start()
        activity.awaitText(R.id.speed, "times real time")
        assertEquals(View.GONE, activity.view<View>(R.id.player).visibility)
        choose()
        assertEquals(View.VISIBLE, activity.view<View>(R.id.player).visibility)
        touch(R.id.camera)
        assertEquals(View.GONE, activity.view<View>(R.id.player).visibility)
    }

    @Test
    fun `one button pauses, goes on and plays again, and says so`() {
        start()
        choose()
        awaitFrame(20)
        assertEquals("Pause", described(R.id.play))
        touch(R.id.play)
        assertEquals("Play" to "Paused", described(R.id.play) to activity.text(R.id.status))
        settle()
        val held = Film.shown.last()
        settle()
        assertEquals(held, Film.shown.last())
        touch(R.id.play)
        assertEquals("Pause", described(R.id.play))
        activity.awaitText(R.id.status, "The video has ended.")
        assertEquals((0 until Film.count).toList(), Film.shown)
        assertEquals("Play again", described(R.id.play))
        assertEquals("the bar is at its end", seek.max, seek.progress)
        assertEquals(1 to 1, Film.opened to Film.released)
        Film.shown.clear()
        touch(R.id.play)
        assertEquals("Pause", described(R.id.play))
        await("the end again") { activity.text(R.id.status) == "The video has ended." && Film.released == 2 }
        assertEquals((0 until Film.count).toList(), Film.shown)
    }

    @Test
    fun `the bar goes to a time, and says it to a screen reader instead of percent`() {
        start()
        choose()
        awaitFrame(5)
        touch(R.id.play)
        settle()
        assertEquals((Film.timeUs(Film.count) / 1000).toInt(), seek.max)
        assertTrue(goTo(1501))
        awaitFrame(45) // At 1.5015 s.
        assertEquals("Position in the video" to "0:01 of ${activity.text(R.id.length)}", node(R.id.seek).run { contentDescription.toString() to stateDescription.toString() })
        assertEquals("0:01" to "0:02", activity.text(R.id.position) to activity.text(R.id.length))
        settle()
        assertEquals("one frame", 45, Film.shown.last())
    }

    @Test
    fun `a video whose repeating is on begins again, and says how to stop it`() {
        Film.count = 40
        start()
        choose()
        assertEquals("Repeat the video", described(R.id.loop))
        touch(R.id.loop)
        assertEquals("Stop repeating the video", described(R.id.loop))
        await("the second time") { Film.shown.size > 50 }
        touch(R.id.loop)
        activity.awaitText(R.id.status, "The video has ended.")
        assertEquals(List(Film.shown.size / 40) { (0 until 40).toList() }.flatten(), Film.shown)
        val begins = List(shown().size) { shown().begins(it) }
        assertEquals("two predictions each time, and then a new stream", List(begins.size) { it > 0 && it % 2 == 0 }, begins)
    }

    @Test
    fun `the background keeps the position, and a pause`() {
        start()
        choose()
        awaitFrame(30)
        touch(R.id.loop)
        background()
        assertEquals("nothing is held there", 1 to 1, Film.opened to Film.released)
        val last = Film.shown.last()
        Film.shown.clear()
        controller.restart().start().resume()
        awaitFrame(last + 3)
        assertEquals("it goes on", last, Film.shown.first())
        touch(R.id.play)
        settle()
        background()
        val held = Film.shown.last()
        Film.shown.clear()
        controller.restart().start().resume()
        settle()
        assertEquals("its frame is shown, and it is paused", listOf(held), Film.shown)
        assertEquals("Play" to "Stop repeating the video", described(R.id.play) to described(R.id.loop))
        assertEquals("Paused", activity.text(R.id.status))
    }

    @Test
    fun `a video that has ended stays so in the background, and begins anew if it is chosen again`() {
        start()
        choose()
        activity.awaitText(R.id.status, "The video has ended.")
        background()
        controller.restart().start().resume()
        settle()
        assertEquals("Play again", described(R.id.play))
        assertEquals(Film.count, Film.shown.size)
        touch(R.id.video)
        background() // The app that shows files is in front.
        shadowOf(activity).receiveResult(shadowOf(activity).nextStartedActivityForResult.intent, Activity.RESULT_OK, Intent().setData(Uri.parse("content://videos/1")))
        controller.restart().start().resume()
        await("all of it again") { Film.shown.size == 2 * Film.count }
    }

    @Test
    fun `turning the screen keeps position, pause and repeating`() {
        start()
        choose()
        awaitFrame(20)
        touch(R.id.loop)
        touch(R.id.play)
        settle()
        val held = Film.shown.last()
        val position = activity.text(R.id.position) to seek.progress
        RuntimeEnvironment.setQualifiers("+land")
        controller.configurationChange(Configuration(application.resources.configuration))
        settle()
        assertEquals("Play" to "Stop repeating the video", described(R.id.play) to described(R.id.loop))
        assertEquals(position, activity.text(R.id.position) to seek.progress)
        assertEquals(held, Film.shown.last())
        assertTrue("the picture is there again", activity.view<ImageView>(R.id.preview).drawable != null)
        assertEquals("the same decoder", 1 to 0, Film.opened to Film.released)
        touch(R.id.play)
        awaitFrame(held + 5)
        assertEquals((0..held + 5).toList(), Film.shown.take(held + 6))
    }

    @Test
    fun `a file's pictures do not turn with the display, and its predictions go on`() {
        start()
        choose()
        awaitFrame(20)
        shadowOf(application.service<DisplayManager>().getDisplay(Display.DEFAULT_DISPLAY)).setRotation(Surface.ROTATION_90)
        controller.pause().resume()
        activity.awaitText(R.id.status, "The video has ended.")
        assertEquals(Film.count / 16, shown().size)
        assertFalse("none began anew", (0 until shown().size).any(shown()::begins))
    }

    private fun shown(): Timeline = requireNotNull(TimelineView::class.java.getDeclaredField("timeline").run { isAccessible = true; get(timeline) as Timeline })

    @Test
    fun `the app that was ended in the background comes back to the position`() {
        start()
        choose()
        awaitFrame(30)
        touch(R.id.play)
        settle()
        val held = Film.shown.last()
        val saved = Bundle()
        controller.pause().stop().saveInstanceState(saved).destroy()
        Film.shown.clear()
        start(saved)
        settle()
        assertEquals(listOf(held), Film.shown)
        assertEquals("Play", described(R.id.play))
    }

    @Test
    fun `a video that cannot be decoded has no controls`() {
        Film.broken = 3
        start()
        choose()
        activity.awaitText(R.id.message, "The video cannot be decoded")
        settle()
        assertEquals(View.GONE, activity.view<View>(R.id.player).visibility)
        assertEquals(1 to 1, Film.opened to Film.released)
    }

    @Test
    fun `touching the timeline says a prediction, and goes to its frames`() {
        start()
        choose()
        activity.awaitText(R.id.status, "The video has ended.")
        activity.drawTo("player-ended")
        Film.shown.clear()
        tap(1.5f)
        awaitFrame(16)
        assertEquals(16, Film.shown.first())
        assertTrue(activity.text(R.id.timeline_chosen), Regex("0:00: (Fight|NoFight), \\d+ percent").matches(activity.text(R.id.timeline_chosen)))
        val before = timeline.contentDescription.toString()
        assertTrue(before, Regex("Last 2 seconds: (Fight|NoFight) 100 percent of the time").matches(before))
    }

    /** Touches the timeline in the middle of a column. */
    private fun tap(columns: Float) {
        val x = columns * 16 * activity.resources.displayMetrics.density * 0.533867f
        val now = SystemClock.uptimeMillis()
        for (action in listOf(MotionEvent.ACTION_DOWN, MotionEvent.ACTION_UP)) timeline.dispatchTouchEvent(MotionEvent.obtain(now, now, action, x, 10f, 0))
    }

    private val input = StepModel.load(Prepared.bundle).use { it.spec.input }

    /** A timeline of 1:46. */
    private fun long(count: Int = 200) = Timeline().apply {
        clear("video", input, isFile = true)
        fill(0, count)
    }

    private fun Timeline.fill(from: Int, to: Int) {
        val names = listOf("CleanAndJerk", "PlayingGuitar", "Basketball", "JumpingJack", "Punch")
        for (i in from until to) add(Ranked(names[(i / 10) % names.size], 0.62f + 0.3f * sin(i * 0.6f) - if (i % 10 == 0) 0.2f else 0f), (i + 1) * 533_867L, i)
    }

    @Test
    fun `the timeline follows the newest until the user scrolls back`() {
        start()
        val log = long()
        timeline.show(log)
        settle()
        // 30 seconds are 56 predictions: 6 of the one before, then 50 of the five last runs.
        assertEquals("Last 30 seconds: Punch 29 percent of the time, CleanAndJerk 18 percent of the time", timeline.contentDescription)
        assertFalse(timeline.canScrollHorizontally(1))
        assertTrue(timeline.canScrollHorizontally(-1))
        assertTrue(timeline.performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_BACKWARD, null))
        val inSight = timeline.contentDescription.toString()
        assertTrue(inSight, inSight.startsWith("From 1:"))
        log.fill(200, 203)
        timeline.show(log)
        assertEquals("it stays where the user is", inSight, timeline.contentDescription)
        assertTrue(timeline.performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_FORWARD, null))
        assertTrue(timeline.performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_FORWARD, null))
        assertFalse(timeline.performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_FORWARD, null))
        assertTrue(timeline.contentDescription.startsWith("Last 30 seconds: "))
    }

    @Test
    fun `arrow keys choose a prediction without going there`() {
        start()
        timeline.show(long())
        settle()
        val said = mutableListOf<Pair<Int, Boolean>>()
        timeline.onChoose = { index, isTouched -> said += index to isTouched }
        timeline.performClick()
        for (key in listOf(KeyEvent.KEYCODE_DPAD_LEFT, KeyEvent.KEYCODE_DPAD_LEFT, KeyEvent.KEYCODE_DPAD_RIGHT)) timeline.onKeyDown(key, KeyEvent(KeyEvent.ACTION_DOWN, key))
        assertEquals(listOf(199 to false, 198 to false, 197 to false, 198 to false), said)
    }

    /** The colours along the foot of the columns, without repetitions. */
    private fun colors(): List<Int> {
        val bitmap = Bitmap.createBitmap(timeline.width, timeline.height, Bitmap.Config.ARGB_8888)
        timeline.draw(Canvas(bitmap))
        val y = bitmap.height / 2 + (20 * activity.resources.displayMetrics.density).toInt()
        return (0 until bitmap.width).map { bitmap.getPixel(it, y) }.filter { Color.alpha(it) == 255 }.fold(mutableListOf()) { all, color -> all.apply { if (lastOrNull() != color) add(color) } }
    }

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `the newest is on the left where that is the end`() {
        start()
        choose()
        activity.awaitText(R.id.status, "The video has ended.")
        timeline.show(long())
        settle()
        activity.drawTo("player-rtl")
        val own = activity.resources.obtainTypedArray(R.array.timeline).run { IntArray(length()) { getColor(it, 0) }.also { recycle() } }
        assertEquals(listOf(4, 3, 2, 1, 0).map { own[it] }, colors())
    }

    @Test
    fun `the colours of neighbours differ, and are seen on their ground by day and by night`() {
        for (night in listOf("notnight", "night")) {
            RuntimeEnvironment.setQualifiers("+$night")
            val colors = application.resources.obtainTypedArray(R.array.timeline).run { IntArray(length()) { getColor(it, 0) }.also { recycle() } }
            assertEquals(8, colors.size)
            for (color in colors) assertTrue("$night ${Integer.toHexString(color)}", contrast(color, application.getColor(R.color.ground)) >= 3)
            for ((a, b) in colors.indices.flatMap { a -> (0 until a).map { colors[a] to colors[it] } }) assertTrue("$night ${Integer.toHexString(a)} ${Integer.toHexString(b)}", difference(a, b) > 25)
        }
    }

    private fun contrast(text: Int, ground: Int): Double = listOf(text, ground).map { Color.luminance(it) + 0.05 }.sortedDescending().let { (light, dark) -> light / dark }

    /** The distance in CIE Lab, in which 2 is just seen. */
    private fun difference(a: Int, b: Int): Double {
        val (first, second) = listOf(a, b).map { DoubleArray(3).also { lab -> toLab(it, lab) } }
        return Math.sqrt((0..2).sumOf { (first[it] - second[it]) * (first[it] - second[it]) })
    }

    private fun toLab(color: Int, lab: DoubleArray) {
        val values = ColorSpace.connect(ColorSpace.get(ColorSpace.Named.SRGB), ColorSpace.get(ColorSpace.Named.CIE_LAB))
            .transform(Color.red(color) / 255f, Color.green(color) / 255f, Color.blue(color) / 255f)
        for (i in 0..2) lab[i] = values[i].toDouble()
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone in light`() = picture("player-light")

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-night-xhdpi")
    fun `a phone in dark`() = picture("player-dark")

    @Test
    @Config(qualifiers = "w891dp-h411dp-normal-long-land-notnight-xhdpi")
    fun `a phone in landscape`() = picture("player-landscape")

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `a small phone with twice the font size, on which all is large enough to touch, and the primary action is seen`() {
        RuntimeEnvironment.setFontScale(2f)
        picture("player-font-2")
        assertActionIsSeen()
        val names = listOf("CleanAndJerk", "HandstandPushups", "PlayingDaf")
        MainViews(activity).render(Screen(status = activity.text(R.id.status), top = names.mapIndexed { i, name -> Ranked(name, 0.5f / (i + 1)) }))
        activity.drawTo("player-font-2-names")
        assertActionIsSeen()
        activity.view<View>(R.id.panel).scrollTo(0, timeline.top)
        activity.drawTo("player-font-2-timeline")
        val least = 48 * activity.resources.displayMetrics.density
        for (view in listOf(R.id.play, R.id.loop, R.id.seek, R.id.timeline).map { activity.view<View>(it) }) {
            val at = Rect().also { view.getDrawingRect(it) }
            activity.view<ViewGroup>(R.id.root).offsetDescendantRectToMyCoords(view, at)
            assertTrue("$view: $at", at.width() >= least && at.height() >= least && at.left >= 0 && at.right <= activity.view<View>(R.id.root).width)
        }
    }

    /** The whole button is on the sheet, without scrolling, and the picture is above that. */
    private fun assertActionIsSeen() {
        val at = Rect().also { activity.view<View>(R.id.video).getDrawingRect(it) }
        val sheet = activity.view<ViewGroup>(R.id.sheet).apply { offsetDescendantRectToMyCoords(activity.view(R.id.video), at) }
        assertTrue("$at in ${sheet.height}", at.top >= activity.view<View>(R.id.panel).top && at.bottom <= sheet.height)
        val root = activity.view<View>(R.id.root)
        assertTrue("${sheet.top} of ${root.height}", sheet.top >= root.height / 8)
    }

    /** Paused at 1:46 of two minutes, with the predictions of a network of more classes than the one that runs. */
    private fun picture(name: String) {
        Film.count = 3600
        Film.picture = { it % Prepared.frames.size }
        start()
        choose()
        awaitFrame(20)
        touch(R.id.loop)
        touch(R.id.play)
        goTo(106_500)
        settle()
        val names = listOf("Punch", "BoxingSpeedBag", "JumpingJack")
        MainViews(activity).render(Screen(status = activity.text(R.id.status), top = names.mapIndexed { i, label -> Ranked(label, 0.71f / (1 shl 2 * i)) }))
        timeline.show(long())
        activity.drawTo(name)
    }

    /** As a screen reader does. */
    private fun goTo(ms: Int) = seek.performAccessibilityAction(
        AccessibilityNodeInfo.AccessibilityAction.ACTION_SET_PROGRESS.id, Bundle().apply { putFloat(AccessibilityNodeInfo.ACTION_ARGUMENT_PROGRESS_VALUE, ms.toFloat()) },
    )

    private companion object {
        val manifest = clipstep.runtime.Bundle.open(Prepared.bundle).manifestSha256
    }
}
