package clipstep.demo

import android.app.Activity
import android.os.Build
import android.view.View
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.ImageButton
import android.widget.SeekBar
import android.widget.TextView

/** The main screen's controls of a video, and the timeline of predictions. */
internal class PlayerViews(private val activity: Activity, private val demo: Demo) {
    private val play: ImageButton = activity.view(R.id.play)
    private val loop: ImageButton = activity.view(R.id.loop)
    private val seek: SeekBar = activity.view(R.id.seek)
    private val timeline: TimelineView = activity.view(R.id.timeline)
    private val chosen: TextView = activity.view(R.id.timeline_chosen)

    init {
        play.setOnClickListener { demo.togglePlaying() }
        loop.setOnClickListener { demo.playing.toggleLoop() }
        seek.setOnSeekBarChangeListener(Seeks())
        seek.accessibilityDelegate = Told()
        timeline.onChoose = ::choose
        demo.playing.show = ::render
        demo.logged = ::log
        render(demo.playing.now)
        log()
    }

    private fun render(now: Playback?) {
        activity.view<View>(R.id.player).visibility = if (now == null) View.GONE else View.VISIBLE
        if (now == null) return
        val (icon, action) = when {
            now.hasEnded -> R.drawable.ic_replay to R.string.replay
            now.isPaused -> R.drawable.ic_play to R.string.play
            else -> R.drawable.ic_pause to R.string.pause
        }
        name(play, icon, action)
        name(loop, if (now.isLooping) R.drawable.ic_repeat_on else R.drawable.ic_repeat, if (now.isLooping) R.string.loop_off else R.string.loop)
        seek.isEnabled = now.lengthUs > 0
        seek.max = maxOf((now.lengthUs / 1000).toInt(), 1)
        if (!seek.isPressed) seek.progress = (now.positionUs / 1000).toInt() // Else the user's finger is on it.
        show(R.id.position, clock(now.positionUs, timeline.zero))
        show(R.id.length, if (now.lengthUs > 0) clock(now.lengthUs, timeline.zero) else "")
    }

    private fun name(button: ImageButton, icon: Int, action: Int) {
        val text = activity.getString(action)
        if (button.contentDescription == text) return
        button.setImageResource(icon)
        button.contentDescription = text
        button.tooltipText = text
    }

    private fun show(id: Int, text: String) = activity.view<TextView>(id).let { if (it.text.toString() != text) it.text = text }

    private fun log() {
        timeline.show(demo.timeline)
        if (demo.timeline.size == 0) chosen.visibility = View.GONE
    }

    /** Says a prediction in words; in a video a touch goes to its frames. */
    private fun choose(index: Int, isTouched: Boolean) {
        val of = demo.timeline
        chosen.text = activity.getString(R.string.timeline_point, clock(of.startUs(index), timeline.zero), of.name(index), of.probability(index) * 100)
        chosen.visibility = View.VISIBLE
        if (isTouched) demo.playing.seek(of.startUs(index))
    }

    private inner class Seeks : SeekBar.OnSeekBarChangeListener {
        override fun onProgressChanged(seekBar: SeekBar, progress: Int, fromUser: Boolean) {
            if (fromUser) demo.playing.seek(progress * 1000L)
        }

        override fun onStartTrackingTouch(seekBar: SeekBar) = Unit

        override fun onStopTrackingTouch(seekBar: SeekBar) = Unit
    }

    /** A screen reader says the time instead of percent, and only when asked: not each second. */
    private inner class Told : View.AccessibilityDelegate() {
        override fun onInitializeAccessibilityNodeInfo(host: View, info: AccessibilityNodeInfo) {
            super.onInitializeAccessibilityNodeInfo(host, info)
            val now = demo.playing.now ?: return
            val time = activity.getString(R.string.position_of, clock(now.positionUs, timeline.zero), clock(now.lengthUs, timeline.zero))
            val name = activity.getString(R.string.position)
            info.contentDescription = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) name else "$name, $time"
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) info.stateDescription = time
        }
    }
}
