package clipstep.demo

import android.app.Activity
import android.app.Notification
import android.content.Intent
import android.graphics.BitmapFactory
import android.net.Uri
import android.os.Handler
import android.os.Looper
import android.os.ParcelFileDescriptor
import android.view.View
import android.widget.Button
import android.widget.RadioButton
import java.io.File
import kotlinx.serialization.json.Json
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowAlertDialog

/** The speed test of minutes: on the screen, when that is left, as a record, and as it is shared. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class LongRunTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private val folder = recordsFolder(application)
    private val measurer = ManualMeasurer(Handler(Looper.getMainLooper())) { threads -> if (threads == 1) listOf(20.0, 20.0, 22.0) else listOf(10.0, 10.0, 14.0) }
    private val asked = Intent(application, BenchActivity::class.java).putExtra("out", "run").putExtra("rounds", 1).putExtra("threads", "1,2")
        .putExtra("engines", "onnxruntime").putExtra("minutes", 1)
    private var controller = Robolectric.buildActivity(BenchActivity::class.java, asked)

    private fun start(intent: Intent = asked): BenchActivity {
        application.manual = measurer
        controller = Robolectric.buildActivity(BenchActivity::class.java, intent).setup()
        await("the quick test") { measurer.sustained != null }
        return controller.get()
    }

    /** Tells seconds of a phone that becomes hot after half of them. */
    private fun tell(seconds: IntRange, last: Int = 60, ms: (Int) -> Double = { if (it < last / 2) 10.0 else 12.5 }) {
        for (second in seconds) {
            application.nowMs = 1000L * second
            application.heat.status = if (second < last / 2) 0 else if (second < last * 4 / 5) 1 else 2
            application.heat.headroom = 0.5f + second * 0.4f / last
            measurer.told(slice(second, ms(second), ms(second), ms(second) * 1.3))
        }
    }

    private fun records() = File(folder, "run.jsonl").readLines().dropLast(1).map { Json.decodeFromString<Record>(it) }

    private fun sustained() = Json.decodeFromString<SustainedRecord>(File(folder, "run.jsonl").readLines().last())

    private fun Activity.isShown(id: Int) = view<View>(id).visibility == View.VISIBLE

    @Test
    fun `the fastest way of the quick test runs on, and the screen says how it stands`() {
        val activity = start()
        assertEquals("onnxruntime" to 2, measurer.sustained?.run { engine to threads })
        assertEquals("The fastest is onnxruntime, 2 threads: 10.0 ms a step. The next, onnxruntime, 1 thread, takes 100 % longer.", activity.text(R.id.fastest))
        assertTrue("Of 100 steps, 50 took up to 10.0 ms, 90 up to 13.2, 95 up to 13.6, 99 up to 13.9." in activity.text(R.id.results))
        tell(0..12)
        assertEquals("onnxruntime, 2 threads: 00:47 left, 39 steps so far", activity.text(R.id.live))
        assertTrue(activity.isShown(R.id.chart) && activity.isShown(R.id.cancel))
        assertFalse(activity.isShown(R.id.start) || activity.isShown(R.id.held))
        assertTrue(File(folder, "run.running").exists())
        tell(13..59)
        measurer.done()
        assertEquals("Done. The numbers are in run.jsonl, in this app's folder on the phone.", activity.text(R.id.status))
        assertEquals("After 1 minute a step takes 25 % longer than at the start.", activity.text(R.id.held))
        assertEquals(
            "Heat slowed the phone down for 30 seconds, at most: clearly.\nAt its warmest it reached 83 % of the heat at which it is slowed down much.\n" +
                "Of 100 steps, 50 took up to 12.5 ms, 90 up to 16.3, 95 up to 16.3, 99 up to 16.3.",
            activity.text(R.id.heat),
        )
        assertEquals("How long a step took over time. After 1 minute a step takes 25 % longer than at the start.", activity.view<View>(R.id.chart).contentDescription)
        assertTrue(activity.isShown(R.id.start))
        assertFalse(activity.isShown(R.id.live) || activity.isShown(R.id.bar) || activity.isShown(R.id.cancel))
        assertEquals(listOf("run.jsonl"), folder.list().orEmpty().toList())
    }

    @Test
    fun `its record holds each second with its heat`() {
        start()
        tell(0..59)
        measurer.done()
        assertEquals(listOf(1, 2), records().map { it.configuration.threads })
        val record = sustained()
        val winner = records()[1]
        assertEquals(listOf(winner.configuration, winner.artifactSha256, winner.device), listOf(record.configuration, record.artifactSha256, record.device))
        assertEquals(listOf(60, true, false), listOf(record.sustainedS, record.complete, record.leftApp))
        assertEquals(List(60) { it.toDouble() to it + 1.0 }, record.buckets.map { it.startS to it.endS })
        assertEquals(List(60) { if (it < 30) 0 else if (it < 48) 1 else 2 }, record.buckets.map { it.thermalStatus })
        assertEquals(listOf(1.0, 11.0, 21.0, 31.0, 41.0, 51.0), record.headrooms.map { it.atS })
        assertEquals(6, application.heat.asked)
        assertEquals(listOf(StepCount(10.0, 60), StepCount(12.5, 60), StepCount(13.0, 30), StepCount(16.3, 30)), record.histogram)
        assertEquals(3.0, record.stepsPerS, 1e-9)
        assertEquals(1.25, record.lastOverFirst!!, 1e-9)
        File(Prepared.folder, "sustained.jsonl").writeText(File(folder, "run.jsonl").readLines().last() + "\n") // tests/benchmarks/sustained.jsonl
    }

    @Test
    fun `a phone that says nothing of heat is said to say nothing`() {
        application.heat = ScriptedThermal(null, null)
        val activity = start()
        for (second in 0..59) measurer.told(slice(second, 10.0))
        measurer.done()
        assertEquals("After 1 minute a step takes as long as at the start.", activity.text(R.id.held))
        assertTrue("This phone does not say whether heat slowed it down.\nThis phone does not say how warm it was." in activity.text(R.id.heat))
        assertEquals(setOf(null) to emptyList<Headroom>(), sustained().run { buckets.map { it.thermalStatus }.toSet() to headrooms })
        assertTrue("\"thermal_status\":null" in File(folder, "run.jsonl").readText())
    }

    @Test
    fun `cancelling keeps what was measured, marked as a part`() {
        val activity = start()
        tell(0..29)
        activity.view<Button>(R.id.cancel).performClick()
        assertTrue(measurer.isCancelled)
        assertEquals("Stopped after 30 seconds of 1 minute. What was measured is kept, and marked as a part.", activity.text(R.id.status))
        assertEquals(30 to false, sustained().run { buckets.size to complete })
        tell(30..31) // Which was on its way.
        measurer.done()
        assertEquals(30 to false, sustained().run { buckets.size to complete })
        assertEquals("After 30 seconds a step takes as long as at the start.", activity.text(R.id.held))
    }

    @Test
    fun `cancelled before its first second it keeps the quick test`() {
        val activity = start()
        activity.view<Button>(R.id.cancel).performClick()
        assertEquals("Stopped. The numbers of the quick test are kept.", activity.text(R.id.status))
        assertEquals(2, File(folder, "run.jsonl").readLines().map { Json.decodeFromString<Record>(it) }.size)
        assertFalse(activity.isShown(R.id.held) || activity.isShown(R.id.chart))
    }

    @Test
    fun `a process that dies leaves what it told before`() {
        val activity = start()
        tell(0..29)
        measurer.failed("the process that measured was ended by the system")
        val words = "The test failed: the process that measured was ended by the system. What was measured before is kept, and marked as a part."
        assertEquals(words, activity.text(R.id.status))
        assertFalse(sustained().complete)
    }

    @Test
    fun `it survives a new screen, and leaving the app, which the record says`() {
        start()
        tell(0..9)
        controller.recreate()
        tell(10..19)
        assertEquals("onnxruntime, 2 threads: 00:40 left, 60 steps so far", controller.get().text(R.id.live))
        assertTrue(File(folder, "run.running").exists())
        controller.pause().stop().destroy()
        tell(20..59)
        measurer.done()
        assertEquals(listOf(60, true, true), sustained().run { listOf(buckets.size, complete, leftApp) })
        val again = Robolectric.buildActivity(BenchActivity::class.java, Intent()).setup().get()
        assertEquals("After 1 minute a step takes 25 % longer than at the start.", again.text(R.id.held))
        assertTrue(again.view<Button>(R.id.share).isEnabled)
    }

    /** A run of the twenty-eighth, in a file, after which the app's process ended. */
    private fun endedApp() = File(folder, "run.jsonl").also { file ->
        start()
        tell(0..59)
        measurer.done()
        controller.pause().stop().destroy()
        application.longRun = null
        file.writeText(file.readText().replace(sustained().measuredUtc, "2026-11-28T12:00:00Z"))
    }

    @Test
    @Config(qualifiers = "w411dp-h1400dp-normal-long-port-notnight-xhdpi")
    fun `after the app's end the last run of this model is shown and shared again, with its date`() {
        val text = endedApp().readText()
        val manifestSha256 = sustained().manifestSha256
        File(folder, "earlier.jsonl").writeText(text.replace("2026-11-28T", "2026-11-27T").replace("\"p95\":16.3", "\"p95\":99.9"))
        File(folder, "replaced.jsonl").writeText(text.replace("2026-11-28T", "2026-11-29T").replace(manifestSha256, "0".repeat(64)))
        File(folder, "other.jsonl").writeText(text.replace("2026-11-28T", "2026-11-29T").replace("demo.clipstep", "a.clipstep"))
        File(folder, "half.jsonl").writeText(text.replace("2026-11-28T", "2026-11-29T").dropLast(50))
        File(folder, "quick.jsonl").writeText(text.lines().take(2).joinToString("\n"))
        val opened = Robolectric.buildActivity(BenchActivity::class.java, Intent().putExtra("bundle", "demo.clipstep")).setup()
        for (again in 0..1) {
            val activity = opened.get()
            activity.awaitText(R.id.kept, "The last long test: November 28, 2026")
            assertEquals("After 1 minute a step takes 25 % longer than at the start.", activity.text(R.id.held))
            assertTrue(activity.text(R.id.heat), "Heat slowed the phone down for 30 seconds" in activity.text(R.id.heat) && "95 up to 16.3" in activity.text(R.id.heat))
            assertTrue(activity.text(R.id.fastest).startsWith("The fastest is onnxruntime, 2 threads: 10.0 ms a step."))
            assertTrue(activity.isShown(R.id.chart) && activity.isShown(R.id.start) && activity.view<Button>(R.id.share).isEnabled)
            if (again == 0) opened.recreate()
        }
        val activity = opened.get()
        activity.drawTo("long-kept")
        activity.view<Button>(R.id.share).performClick()
        shadowOf(ShadowAlertDialog.getLatestDialog() as android.app.AlertDialog).clickOnItem(0)
        assertTrue(File(folder, "run.png").exists())
        activity.view<Button>(R.id.start).performClick()
        assertFalse(activity.isShown(R.id.kept) || activity.isShown(R.id.chart) || activity.view<Button>(R.id.share).isEnabled)
    }

    @Test
    fun `a part that was kept is said to be one`() {
        endedApp().run { writeText(readText().replace("\"complete\":true", "\"complete\":false")) }
        val activity = Robolectric.buildActivity(BenchActivity::class.java, Intent()).setup().get()
        activity.awaitText(R.id.kept, "Stopped before its end: 1 minute had been planned.")
    }

    @Test
    fun `a damaged file of a run is passed over`() {
        val file = endedApp()
        val text = file.readText()
        fun runs(damaged: String) = Records(folder).also { file.writeText(damaged) }.sustained().size
        assertEquals(1, runs(text))
        val filled = Regex("(?<=\"(buckets|step_ms)\":\\[)[^]]+|(?<=\"percentiles_ms\":\\{)[^}]+").findAll(text).toList()
        assertEquals(1 + 2 + 3, filled.size)
        for (match in filled) assertEquals(match.value.take(80), 0, runs(text.removeRange(match.range)))
        val cuts = List(40) { text.take(text.length * it / 40) } + text.dropLast(2)
        val values = listOf("2026-11-28T12:00:00Z" to "the twenty-eighth", "\"p50_ms\":10.0" to "\"p50_ms\":0.0", "\"end_s\":60.0" to "\"end_s\":1.0", "\"steps\":3" to "\"steps\":3.5")
        for (damaged in cuts + values.map { (from, to) -> text.replace(from, to) } + listOf("\n\n", "[]", "{}\n{}", "\u0000\u0001", text.lines()[2])) assertEquals(damaged.takeLast(80), 0, runs(damaged))
        file.delete()
        folder.deleteRecursively()
        assertEquals(0, Records(folder).sustained().size)
    }

    @Test
    fun `a notification with Cancel keeps it going`() {
        start()
        tell(0..9)
        val intent = requireNotNull(shadowOf(application).nextStartedService)
        assertEquals(KeepService::class.java.name, intent.component?.className)
        val keeper = Robolectric.buildService(KeepService::class.java, intent).create().startCommand(0, 0)
        val notification: Notification = shadowOf(keeper.get()).lastForegroundNotification
        assertEquals("The speed test runs", notification.extras.getString(Notification.EXTRA_TITLE))
        assertTrue(org.robolectric.shadows.ShadowPowerManager.getLatestWakeLock().isHeld)
        val cancel = shadowOf(notification.actions.single().actionIntent)
        assertTrue(cancel.isService)
        keeper.get().onStartCommand(cancel.savedIntent, 0, 1)
        assertEquals(10 to false, sustained().run { buckets.size to complete })
        assertTrue(shadowOf(keeper.get()).isStoppedBySelf && shadowOf(keeper.get()).isForegroundStopped)
        keeper.destroy()
        assertFalse(org.robolectric.shadows.ShadowPowerManager.getLatestWakeLock().isHeld)
    }

    @Test
    fun `minutes that cannot be are refused at once`() {
        application.manual = measurer
        for ((minutes, words) in listOf(0 to "minutes must be at least 1; got 0", 61 to "minutes must be at most 60; got 61", -3 to "minutes must be at least 1; got -3")) {
            Robolectric.buildActivity(BenchActivity::class.java, Intent(asked).putExtra("minutes", minutes)).setup().get().awaitText(R.id.status, words)
            assertTrue(words in File(folder, "run.error").readText())
        }
        assertNull(measurer.sustained)
    }

    @Test
    fun `the user chooses how long, and is asked for notifications`() {
        val activity = Robolectric.buildActivity(BenchActivity::class.java, Intent(application, BenchActivity::class.java)).setup().get()
        application.manual = measurer
        assertEquals("Quick, then the fastest for 10 minutes: does it keep its speed?", activity.view<RadioButton>(R.id.long_10).text)
        activity.view<RadioButton>(R.id.long_3).performClick()
        activity.view<Button>(R.id.start).performClick()
        assertEquals(listOf(android.Manifest.permission.POST_NOTIFICATIONS), shadowOf(activity).lastRequestedPermission.requestedPermissions.toList())
        await("the quick test") { measurer.sustained != null }
        assertEquals(180, application.longRun?.plan?.seconds)
        assertFalse(activity.view<RadioButton>(R.id.long_3).isEnabled)
    }

    @Test
    fun `one Share gives the picture or the numbers, and the app that gets them may read these alone`() {
        val activity = start()
        tell(0..59)
        measurer.done()
        val provider = Robolectric.setupContentProvider(RecordsProvider::class.java, RecordsProvider.AUTHORITY)
        fun shared(choice: Int): Pair<String?, ByteArray> {
            activity.view<Button>(R.id.share).performClick()
            shadowOf(ShadowAlertDialog.getLatestDialog() as android.app.AlertDialog).clickOnItem(choice)
            val send = requireNotNull(shadowOf(activity).nextStartedActivity.getParcelableExtra(Intent.EXTRA_INTENT, Intent::class.java))
            assertEquals(Intent.ACTION_SEND to true, send.action to (send.flags and Intent.FLAG_GRANT_READ_URI_PERMISSION != 0))
            val uri = requireNotNull(send.getParcelableExtra(Intent.EXTRA_STREAM, Uri::class.java))
            assertEquals(listOf(uri, send.type), listOf(send.clipData?.getItemAt(0)?.uri, provider.getType(uri)))
            return send.type to ParcelFileDescriptor.AutoCloseInputStream(provider.openFile(uri, "r")).use { it.readBytes() }
        }
        val (type, png) = shared(0)
        val bitmap = BitmapFactory.decodeByteArray(png, 0, png.size)
        assertEquals("image/png" to 1080, type to bitmap.width)
        assertTrue("${bitmap.height}", bitmap.height in 1000..2500)
        File(Prepared.folder, "screens/benchmark-picture.png").apply { parentFile?.mkdirs() }.writeBytes(png)
        val (numbers, text) = shared(1)
        assertEquals("application/json", numbers)
        assertEquals(sustained(), Json.decodeFromString<SustainedRecord>(String(text).trim().lines().last()))
    }

    /** With the model's own steps, on a scripted clock. */
    @Test
    fun `adb's minutes give a record that Python reads`() {
        application.heat.headroom = Float.NaN
        val activity = Robolectric.buildActivity(BenchActivity::class.java, Intent(asked).putExtra("steps", 3).putExtra("warmup", 1).putExtra("rounds", 2)).setup().get()
        activity.awaitText(R.id.status, "Done. The numbers are in run.jsonl")
        val record = sustained()
        assertEquals(listOf(50, 150, true), listOf(record.buckets.size, record.histogram.sumOf { it.steps }, record.complete))
        assertEquals(listOf(StepCount(400.0, 150)), record.histogram)
        File(folder, "run.jsonl").copyTo(File(Prepared.folder, "records.jsonl"), overwrite = true)
    }

    private fun draw(name: String) {
        val activity = start()
        controller.newIntent(Intent(asked).putExtra("minutes", 3))
        await("another quick test") { application.longRun?.plan?.seconds == 180 }
        val pace = { second: Int -> 12 + 0.6 * Math.sin(second / 3.0) + if (second < 100) 0.0 else minOf((second - 100) / 20.0, 2.5) }
        tell(0..69, 180, pace)
        activity.drawTo("$name-live")
        tell(70..179, 180, pace)
        measurer.done()
        activity.drawTo(name)
    }

    @Test
    @Config(qualifiers = "w411dp-h1400dp-normal-long-port-notnight-xhdpi")
    fun `light`() = draw("long-light")

    @Test
    @Config(qualifiers = "w411dp-h1400dp-normal-long-port-night-xhdpi")
    fun `dark`() = draw("long-dark")

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h1400dp-normal-long-port-notnight-xhdpi")
    fun `from right to left`() = draw("long-rtl")

    @Test
    @Config(qualifiers = "w320dp-h1800dp-normal-long-port-night-hdpi")
    fun `large text on a small screen`() {
        RuntimeEnvironment.setFontScale(2f)
        draw("long-font-2")
    }

    @Test
    @Config(qualifiers = "w1280dp-h800dp-xlarge-land-notnight-mdpi")
    fun `a tablet`() = draw("long-tablet")
}
