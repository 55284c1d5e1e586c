package clipstep.demo

import android.app.Service
import android.content.Intent
import android.os.Bundle
import android.os.Handler
import android.os.HandlerThread
import android.os.IBinder
import android.os.Message
import android.os.Messenger
import android.os.Process
import android.os.RemoteException
import android.util.Log
import clipstep.runtime.ClipstepException
import kotlinx.serialization.json.Json

internal const val KEY_TASK = "task"

/** Seconds of steps without pause, in place of the task's number of steps; 0 for that. */
internal const val KEY_SECONDS = "seconds"
internal const val KEY_SLICE = "slice"
internal const val KEY_RESULT = "result"
internal const val KEY_ERROR = "error"

/** Measures one task in the process `:bench`, which does nothing else and ends after its answer. */
class BenchService : Service() {
    private val thread = HandlerThread("bench").apply { start() }
    private val messenger by lazy { Messenger(Handler(thread.looper) { answer(it) }) }

    @Volatile
    private var isStopped = false

    override fun onBind(intent: Intent): IBinder = messenger.binder

    override fun onDestroy() {
        isStopped = true
        thread.quitSafely()
        super.onDestroy()
    }

    private fun answer(message: Message): Boolean {
        val task = Json.decodeFromString<Task>(requireNotNull(message.data.getString(KEY_TASK)))
        val seconds = message.data.getInt(KEY_SECONDS)
        val replies = message.replyTo
        try {
            tell(replies, KEY_RESULT, if (seconds == 0) Json.encodeToString(measure(task, Process.myPid())) else sustained(task, seconds, replies))
        } catch (error: ClipstepException) {
            Log.e(TAG, "benchmark", error)
            tell(replies, KEY_ERROR, error.message.orEmpty())
        }
        Process.killProcess(Process.myPid())
        return true
    }

    /** Tells each slice as it ends; the result is empty. */
    private fun sustained(task: Task, seconds: Int, replies: Messenger): String {
        sustain(task, seconds, { isStopped }) { tell(replies, KEY_SLICE, Json.encodeToString(it)) }
        return ""
    }

    private fun tell(replies: Messenger, key: String, text: String) {
        try {
            replies.send(Message.obtain().apply { data = Bundle().apply { putString(key, text) } })
        } catch (error: RemoteException) {
            Log.e(TAG, "nobody waits for the measurement", error)
            isStopped = true
        }
    }
}
