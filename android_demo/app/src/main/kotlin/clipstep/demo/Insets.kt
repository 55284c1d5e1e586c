package clipstep.demo

import android.app.Activity
import android.graphics.Color
import android.graphics.Rect
import android.os.Build
import android.view.View
import android.view.WindowInsets
import android.view.WindowInsetsController
import android.widget.TextView

/** Draws content under the system's bars, as Android 15 and newer do by themselves. */
@Suppress("DEPRECATION")
internal fun Activity.edgeToEdge() {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        window.setDecorFitsSystemWindows(false)
    } else {
        window.decorView.systemUiVisibility = window.decorView.systemUiVisibility or View.SYSTEM_UI_FLAG_LAYOUT_STABLE or
            View.SYSTEM_UI_FLAG_LAYOUT_FULLSCREEN or View.SYSTEM_UI_FLAG_LAYOUT_HIDE_NAVIGATION
    }
}

/** Keeps a view clear of the system's bars and the display's cutout. What [below] scrolls goes on under the bar at the bottom, and its end is clear of it. */
internal fun View.padForInsets(below: View? = null) {
    val end = below?.paddingBottom ?: 0
    setOnApplyWindowInsetsListener { view, insets ->
        val bars = bars(insets)
        view.setPadding(bars.left, bars.top, bars.right, if (below == null) bars.bottom else 0)
        below?.run { setPadding(paddingLeft, paddingTop, paddingRight, end + bars.bottom) }
        insets
    }
}

private fun bars(insets: WindowInsets): Rect {
    if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return oldBars(insets)
    val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
    return Rect(bars.left, bars.top, bars.right, bars.bottom)
}

@Suppress("DEPRECATION")
private fun oldBars(insets: WindowInsets) =
    Rect(insets.systemWindowInsetLeft, insets.systemWindowInsetTop, insets.systemWindowInsetRight, insets.systemWindowInsetBottom)

/** Gives the main screen a ground, which is seen around the picture and the sheet, with the system's icons at its top in the colour that is read on it. */
@Suppress("DEPRECATION")
internal fun Activity.ground(color: Int) {
    view<View>(R.id.root).setBackgroundColor(color)
    val isLight = Color.luminance(color) > 0.5
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        val dark = WindowInsetsController.APPEARANCE_LIGHT_STATUS_BARS
        window.insetsController?.setSystemBarsAppearance(if (isLight) dark else 0, dark)
    } else {
        val others = window.decorView.systemUiVisibility and View.SYSTEM_UI_FLAG_LIGHT_STATUS_BAR.inv()
        window.decorView.systemUiVisibility = if (isLight) others or View.SYSTEM_UI_FLAG_LIGHT_STATUS_BAR else others
    }
}

/** Gives a screen below the main one its title and its way back, and lets it scroll under the system's bars. */
internal fun Activity.showTop(title: Int) {
    edgeToEdge()
    view<View>(R.id.root).padForInsets()
    view<TextView>(R.id.title).setText(title)
    view<View>(R.id.back).setOnClickListener { finish() }
}
