package clipstep.demo

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import android.widget.TextView
import java.io.File
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.robolectric.Shadows.shadowOf

/** Lets the main thread work until the condition holds. */
internal fun await(what: String, seconds: Int = 60, condition: () -> Boolean) {
    val end = System.nanoTime() + seconds * 1_000_000_000L
    while (!condition()) {
        shadowOf(Looper.getMainLooper()).idleFor(java.time.Duration.ofMillis(20))
        Thread.sleep(5)
        if (System.nanoTime() > end) fail("waited $seconds s for: $what")
    }
}

internal fun Activity.text(id: Int): String = view<TextView>(id).text.toString()

/** Waits until a text on the screen has these words. */
internal fun Activity.awaitText(id: Int, words: String) {
    try {
        await(words) { words in text(id) }
    } catch (error: AssertionError) {
        throw AssertionError("${error.message}; the screen says: ${text(id)} / ${text(R.id.message)}", error)
    }
}

/** Draws the whole screen as a PNG, for a person to look at; a blank one fails. */
internal fun Activity.drawTo(name: String) {
    shadowOf(Looper.getMainLooper()).idle()
    val view: View = window.decorView
    val (width, height) = resources.displayMetrics.run { widthPixels to heightPixels }
    view.measure(View.MeasureSpec.makeMeasureSpec(width, View.MeasureSpec.EXACTLY), View.MeasureSpec.makeMeasureSpec(height, View.MeasureSpec.EXACTLY))
    view.layout(0, 0, width, height) // What changed since the last frame has its place.
    val bitmap = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
    view.draw(Canvas(bitmap))
    val file = File(Prepared.folder, "screens/$name.png").apply { parentFile?.mkdirs() }
    file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    val colors = (0 until bitmap.height step 7).flatMap { y -> (0 until bitmap.width step 7).map { x -> bitmap.getPixel(x, y) } }.toSet()
    assertTrue("$name has ${colors.size} colours", colors.size > 8)
}
