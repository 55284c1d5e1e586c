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
internal const val KEY_RESULT = "result"
internal const val KEY_ERROR = "error"

/** Measures one task in the process `:bench`, which does nothing else and ends after its answer. */
class BenchService : Service() {
    private val thread = HandlerThread("bench").apply { start() }
    private val messenger by lazy { Messenger(Handler(thread.looper) { answer(it) }) }

    override fun onBind(intent: Intent): IBinder = messenger.binder

    override fun onDestroy() {
        thread.quitSafely()
        super.onDestroy()
    }

    private fun answer(message: Message): Boolean {
        val task = Json.decodeFromString<Task>(requireNotNull(message.data.getString(KEY_TASK)))
        val result = Bundle()
        try {
            result.putString(KEY_RESULT, Json.encodeToString(measure(task, Process.myPid())))
        } catch (error: ClipstepException) {
            Log.e(TAG, "benchmark", error)
            result.putString(KEY_ERROR, error.message)
        }
        try {
            message.replyTo.send(Message.obtain().apply { data = result })
        } catch (error: RemoteException) {
            Log.e(TAG, "nobody waits for the measurement", error)
        }
        Process.killProcess(Process.myPid())
        return true
    }
}
