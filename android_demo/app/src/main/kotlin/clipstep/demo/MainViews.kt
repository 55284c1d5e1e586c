package clipstep.demo

import android.app.Activity
import android.graphics.Color
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView
import clipstep.runtime.Ranked

/** The main screen's views. */
internal class MainViews(private val activity: Activity) {
    private val rows: ViewGroup = activity.view(R.id.rows)

    init {
        activity.view<View>(R.id.root).padForInsets(activity.view(R.id.panel))
        if (activity.findViewById<View>(R.id.sheet) == null) activity.view<View>(R.id.expand).visibility = View.GONE
        activity.view<View>(R.id.more).setOnClickListener { toggle(R.id.details) }
        activity.view<View>(R.id.message_more).setOnClickListener { toggle(R.id.message_details) }
    }

    fun render(screen: Screen) {
        text(R.id.what).text = screen.what
        text(R.id.check).text = screen.check
        text(R.id.speed).text = screen.speed
        show(R.id.status, screen.status)
        show(R.id.message, screen.message.orEmpty())
        show(R.id.message_details, screen.reason.orEmpty())
        activity.view<View>(R.id.trouble).visibility = if (screen.message == null) View.GONE else View.VISIBLE
        activity.view<View>(R.id.message_more).visibility = if (screen.reason == null) View.GONE else View.VISIBLE
        if (screen.reason == null) activity.view<View>(R.id.message_details).visibility = View.GONE
        render(screen.lack)
        render(screen.coming)
        while (rows.childCount < screen.top.size) LayoutInflater.from(activity).inflate(R.layout.row, rows).also { if (rows.childCount == 1) emphasise(rows.getChildAt(0)) }
        val absent = if (screen.top.isEmpty()) View.INVISIBLE else View.GONE // Until the next prediction what is below keeps its place.
        for (i in 0 until rows.childCount) render(rows.getChildAt(i), screen.top.getOrNull(i), absent)
    }

    /** The likeliest class is larger, and a screen reader says when it changes, after what it says already. */
    private fun emphasise(row: View) {
        for (id in listOf(R.id.label, R.id.percent)) row.view<TextView>(id).setTextAppearance(R.style.Type_Headline)
        row.view<TextView>(R.id.label).run {
            importantForAccessibility = View.IMPORTANT_FOR_ACCESSIBILITY_YES
            accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
        }
    }

    private fun toggle(id: Int) = activity.view<View>(id).run { visibility = if (visibility == View.GONE) View.VISIBLE else View.GONE }

    /** Sets a text if it is another one, because a screen reader says each that is set. */
    private fun show(id: Int, text: String) = show(text(id), text)

    private fun show(view: TextView, text: String) {
        if (view.text.toString() != text) view.text = text
    }

    private fun render(lack: Lack?) {
        activity.view<View>(R.id.lack).visibility = if (lack == null) View.GONE else View.VISIBLE
        activity.view<View>(R.id.picture).visibility = if (lack == null) View.VISIBLE else View.GONE
        activity.ground(if (lack == null) Color.BLACK else activity.getColor(R.color.ground))
        activity.view<View>(R.id.video).visibility = if (lack == null || lack == Lack.PERMISSION) View.VISIBLE else View.GONE
        activity.view<View>(R.id.camera).visibility = if (lack == null) View.VISIBLE else View.GONE
        if (lack == null) return
        text(R.id.lack_title).setText(lack.title)
        text(R.id.lack_text).setText(lack.text)
        activity.view<Button>(R.id.lack_action).setText(lack.action)
    }

    private fun render(coming: Coming?) {
        activity.view<View>(R.id.coming).visibility = if (coming == null) View.GONE else View.VISIBLE
        if (coming == null) return
        text(R.id.coming_text).text = coming.text
        activity.view<View>(R.id.open_offered).visibility = if (coming.offered == null) View.GONE else View.VISIBLE
        activity.view<ProgressBar>(R.id.coming_progress).run {
            visibility = if (coming.offered == null) View.VISIBLE else View.GONE
            isIndeterminate = coming.permille == null
            progress = coming.permille ?: 0
        }
    }

    /** Labels the camera button: it starts the camera if a video is shown, and switches to the next camera otherwise. */
    fun showsVideo(isVideo: Boolean) = activity.view<Button>(R.id.camera).run {
        setText(if (isVideo) R.string.camera else R.string.turn_camera)
        setCompoundDrawablesRelativeWithIntrinsicBounds(if (isVideo) R.drawable.ic_camera else R.drawable.ic_turn, 0, 0, 0)
    }

    private fun render(row: View, ranked: Ranked?, absent: Int) {
        row.visibility = if (ranked == null) absent else View.VISIBLE
        if (ranked == null) return
        show(row.view(R.id.label), breakable(ranked.label))
        row.view<ProgressBar>(R.id.bar).progress = (ranked.probability * 1000).toInt()
        row.view<TextView>(R.id.percent).text = activity.getString(R.string.percent, ranked.probability * 100)
        row.contentDescription = activity.getString(R.string.row_description, ranked.label, ranked.probability * 100)
    }

    private fun text(id: Int): TextView = activity.view(id)
}

private val WORD_STARTS = Regex("(?<=[a-z_])(?=[A-Z])|(?<=_)")

/** Lets a class name such as `CleanAndJerk` wrap between its words. */
internal fun breakable(label: String): String = label.replace(WORD_STARTS, "\u200B")
