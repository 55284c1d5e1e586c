package clipstep.demo

import android.os.Build
import android.view.View
import android.view.WindowInsets

/** Keeps a view clear of the system's bars and the camera's cut-out: since target SDK 35 content is drawn under them. */
internal fun View.padForInsets() = setOnApplyWindowInsetsListener { view, insets ->
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
        view.setPadding(bars.left, bars.top, bars.right, bars.bottom)
    } else {
        padForOldInsets(view, insets)
    }
    insets
}

@Suppress("DEPRECATION")
private fun padForOldInsets(view: View, insets: WindowInsets) =
    view.setPadding(insets.systemWindowInsetLeft, insets.systemWindowInsetTop, insets.systemWindowInsetRight, insets.systemWindowInsetBottom)
