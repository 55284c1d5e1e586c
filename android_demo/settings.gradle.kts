pluginManagement {
    // R8 of this Android Gradle plugin does not know the metadata of this Kotlin; this one does, and is the one that make test-android shrinks with.
    buildscript {
        repositories {
            google()
            mavenCentral()
        }
        dependencies {
            classpath("com.android.tools:r8:9.5.28")
        }
    }
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "clipstep-demo"
include(":app", ":clipstep-android", ":clipstep-runtime")
project(":clipstep-android").projectDir = file("../runtime/android")
project(":clipstep-runtime").projectDir = file("../runtime/kotlin")
