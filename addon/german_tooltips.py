"""German for what is read when the mouse rests on a button, and for the settings in the dialogs of operators."""

from __future__ import annotations

RIG = {
    "Set right what the error is about": "Beheben, wovon die Fehlermeldung spricht",
    "Choose which armature of the scene gets the motion": "Wählen, welches Skelett der Szene die Bewegung bekommt",
    "Look for bones that will not do what a take asks of them: constraints, drivers, locked channels": (
        "Knochen suchen, die einer Aufnahme nicht folgen werden: Constraints, Treiber, gesperrte Kanäle"
    ),
    "All bones that move a mesh, and what they hang on": "Alle Knochen, die ein Mesh bewegen, und woran sie hängen",
    "Of those, the ones selected in pose mode; all others keep their pose": (
        "Davon die im Posenmodus ausgewählten; alle anderen behalten ihre Pose"
    ),
    "Of those, the ones in a bone collection; all others keep their pose": (
        "Davon die einer Knochensammlung; alle anderen behalten ihre Pose"
    ),
    "The bone collection whose bones get keys": "Die Knochensammlung, deren Knochen Keys bekommen",
    "Make a table of the joints: what their names say, and a guess from the skeleton's shape where they say nothing": (
        "Eine Tabelle der Gelenke: was ihre Namen sagen und, wo sie nichts sagen, was die Form des Skeletts vermuten lässt"
    ),
    "Forget what was said of the joints; their own names count again": (
        "Die Angaben zu den Gelenken vergessen; ihre eigenen Namen gelten wieder"
    ),
    "Is": "Ist",
    "What this joint is, in English: Left Knee. Empty: the bone's own name, or a guess": (
        "Was dieses Gelenk ist, auf Englisch: Left Knee. Leer: der Name des Knochens oder was vermutet wird"
    ),
    "Joint": "Gelenk",
}

VIDEO = {
    "Choose the video, or one picture of a numbered sequence, to capture motion from": (
        "Das Video wählen, oder ein Bild einer nummerierten Folge, aus dem die Bewegung kommt"
    ),
    "The video file": "Die Videodatei",
    "Capture Motion from Video": "Bewegung aus Video übernehmen",
    "Set the scene's frame rate to that of the footage, so that each frame of the video is a frame of the scene": (
        "Die Bildrate der Szene der Aufnahme angleichen, sodass jedes Bild des Videos ein Bild der Szene ist"
    ),
    "Put a command on the clipboard that converts the video with ffmpeg to what can be read: run it in a terminal": (
        "Einen Befehl in die Zwischenablage legen, mit dem ffmpeg das Video lesbar macht: in einem Terminal ausführen"
    ),
    "What is known of the video, or what is wrong with it": "Was über das Video bekannt ist, oder was daran nicht stimmt",
    "How many times faster the motion really was: 4 for footage in slow motion at a quarter of the speed": (
        "Wievielmal schneller die Bewegung in Wirklichkeit war: 4 bei Zeitlupe mit einem Viertel der Geschwindigkeit"
    ),
    "Frames per second of the footage; 0 is the file's own rate, or 24 for a sequence of pictures": (
        "Bilder je Sekunde der Aufnahme; 0 ist die Rate der Datei, oder 24 bei einer Bildfolge"
    ),
    "Left, top, right and bottom of the subject on the first frame, in pixels from the top left": (
        "Links, oben, rechts und unten um das Motiv auf dem ersten Bild, in Pixeln von links oben"
    ),
    "Left, top, right and bottom in pixels from the top left": "Links, oben, rechts und unten in Pixeln von links oben",
    "A video, or one picture of a numbered sequence, that is white where the subject is; empty to find it": (
        "Ein Video oder ein Bild einer nummerierten Folge, weiß, wo das Motiv ist; leer: es wird gesucht"
    ),
    "Seconds into the video": "Sekunden ab Anfang des Videos",
    "Seconds into the video; 0 is its end": "Sekunden ab Anfang des Videos; 0 ist sein Ende",
}

REFERENCE = {
    "The pose as it stands, keyed or not": "Die Pose, wie sie ist, mit oder ohne Keys",
    "The pose at a frame of the scene": "Die Pose auf einem Bild der Szene",
    "Frame of the reference pose": "Bild der Referenzpose",
    "The side that looks most like the video": "Die Seite, die dem Video am ähnlichsten ist",
    "Choose among pictures of the rig": "Unter Bildern des Rigs wählen",
    "A side of your choice": "Eine Seite eigener Wahl",
    "0 is Blender's front view, 90 degrees looks from +X": "0 ist Blenders Ansicht von vorne, 90 Grad blickt von +X",
    "On average as in the reference pose; turns within the take are kept": (
        "Im Mittel wie in der Referenzpose; Drehungen innerhalb der Aufnahme bleiben"
    ),
    "As seen in the video by a camera on the chosen side": "Wie im Video von einer Kamera auf der gewählten Seite gesehen",
    "Make pictures of the rig in its reference pose from eight sides, and choose the video's side among them": (
        "Bilder des Rigs in der Referenzpose von acht Seiten machen und darunter die Seite des Videos wählen"
    ),
}

MODEL_AND_OUTPUT = {
    "Comes with the add-on; works offline, on any device": "Wird mitgeliefert; geht ohne Netz, auf jedem Gerät",
    "The public weights of video2pose2rot: a download of 2.6 GB, best on a graphics card": (
        "Die öffentlichen Gewichte von video2pose2rot: 2,6 GB herunterzuladen, am besten auf einer Grafikkarte"
    ),
    "Weights from a file of your own": "Gewichte aus einer eigenen Datei",
    "A .safetensors file": "Eine .safetensors-Datei",
    "The device chosen in the add-on's preferences": "Das in den Einstellungen des Add-ons gewählte Gerät",
    "The graphics card where PyTorch can use it, else the processor": (
        "Die Grafikkarte, wo PyTorch sie verwenden kann, sonst der Prozessor"
    ),
    "An NVIDIA graphics card (or AMD with ROCm)": "Eine Grafikkarte von NVIDIA (oder AMD mit ROCm)",
    "An Apple graphics processor": "Ein Grafikprozessor von Apple",
    "The processor: works everywhere": "Der Prozessor: geht überall",
    "The scene's current frame": "Das jetzige Bild der Szene",
    "A frame of your choice": "Ein Bild eigener Wahl",
    "Frame of the first key": "Bild des ersten Keys",
    "The armature's action in use": "Die Aktion, die das Skelett verwendet",
    "A strip on a new track on top; an action in use is pushed down onto a track below it": (
        "Ein Streifen auf einer neuen Spur ganz oben; eine verwendete Aktion kommt auf eine Spur darunter"
    ),
    "Add or remove a preset of the AnyRig panel: bones, reference, output and model, but no video and no armature": (
        "Eine Vorgabe des AnyRig-Bereichs hinzufügen oder entfernen: Knochen, Referenz, Ausgabe, Modell; ohne Video und Skelett"
    ),
    "Key the motion seen in the video onto the armature, or all selected ones in one run, as new actions": (
        "Die Bewegung aus dem Video als neue Aktion auf das Skelett keyen, oder auf alle ausgewählten in einem Lauf"
    ),
    "Get the public weights and their two encoders from the internet; what has arrived is kept when you cancel": (
        "Die öffentlichen Gewichte und ihre beiden Encoder aus dem Internet holen; was da ist, bleibt beim Abbrechen"
    ),
    "Look through a folder, with all folders in it, for the released weights; they stay where they are": (
        "Einen Ordner samt Unterordnern nach den veröffentlichten Gewichten durchsuchen; sie bleiben, wo sie sind"
    ),
    "Delete what was downloaded; files of your own stay where they are": (
        "Heruntergeladenes löschen; eigene Dateien bleiben, wo sie sind"
    ),
}

TAKES = {
    "Make the armature play the action that was written from this take": ("Das Skelett die Aktion dieses Takes abspielen lassen"),
    "Switch the armature between this take and the action chosen beside it, or the one it played before the take": (
        "Das Skelett zwischen diesem Take und der daneben gewählten Aktion umschalten, oder der, die es vorher abspielte"
    ),
    "Write the keys of this take anew, as a new action that starts and goes where Output says; the network is not needed, and "
    "edited keys are kept apart": (
        "Die Keys dieses Takes neu schreiben, als neue Aktion, wie Ausgabe es sagt; ohne das Netz, bearbeitete Keys bleiben"
    ),
    "Onto the Picked Armature": "Auf das gewählte Skelett",
    "Onto the armature of the panel instead of the one that was captured": (
        "Auf das Skelett des Bereichs statt auf das der Aufnahme"
    ),
    "Delete this take from the file, and its action unless something else uses it; the armature goes back to what it played": (
        "Diesen Take löschen, und seine Aktion, wenn sonst nichts sie verwendet; das Skelett spielt wieder das Frühere"
    ),
    "Bring back takes that Blender did not live to save: a copy of the latest ones is kept in the add-on's user folder": (
        "Takes zurückholen, die Blender nicht mehr sichern konnte: Kopien der letzten liegen im Benutzerordner des Add-ons"
    ),
    "One copy; all that this file lacks if empty": "Eine Kopie; leer: alle, die dieser Datei fehlen",
    "Take": "Take",
    "Compare With": "Vergleichen mit",
    "The action to compare the take with; if empty, what the armature played before the take": (
        "Die Aktion, mit der der Take verglichen wird; leer: was das Skelett vor dem Take abspielte"
    ),
    "The take chosen in the list": "Der in der Liste gewählte Take",
}

CHECK = {
    "Show the take's joints as thin lines in the 3D views: blue where the capture was sure, orange where it lost the subject": (
        "Die Gelenke des Takes als dünne Linien zeigen: blau, wo die Aufnahme sicher war, orange, wo sie das Motiv verlor"
    ),
    "Write a movie of the video beside the rig, seen from the same side; the scene is not touched": (
        "Einen Film schreiben: das Video neben dem Rig, von derselben Seite gesehen; die Szene bleibt unberührt"
    ),
    "The mp4 file to write; beside the video if empty": "Die mp4-Datei; leer: neben dem Video",
    "Height": "Höhe",
    "Pixels; the video's own height at most": "Pixel; höchstens die Höhe des Videos",
    "Also over the Footage": "Auch über der Aufnahme",
    "Add a third picture: the rig over its video": "Ein drittes Bild: das Rig über seinem Video",
    "Look at the rig through a camera matched to the take, over its video; click again and everything is as before": (
        "Das Rig durch eine zum Take passende Kamera über dem Video sehen; noch ein Klick, und alles ist wie vorher"
    ),
    "Elevation": "Kamerahöhe",
    "How far above the subject's level the video's camera was: not known from the capture": (
        "Wie weit die Kamera über dem Motiv stand: aus der Aufnahme nicht bekannt"
    ),
    "Turn": "Drehung",
    "Turns the camera about the subject, should the side that was found be a little off": (
        "Dreht die Kamera um das Motiv, falls die gefundene Seite nicht genau stimmt"
    ),
    "Distance": "Entfernung",
    "How far away the video's camera was, in sizes of the subject: near cameras show near limbs larger. Not known": (
        "Wie weit die Kamera entfernt war, in Größen des Motivs: nahe Kameras zeigen nahe Glieder größer. Nicht bekannt"
    ),
    "Hide Other Objects": "Andere Objekte verbergen",
    "Hide what would stand between the rig and its footage": "Verbergen, was zwischen Rig und Aufnahme stünde",
}

QUEUE = {
    "Add a job: these armatures, this video, these settings": "Einen Auftrag anlegen: diese Skelette, dieses Video, diese Werte",
    "Choose many videos: a job for each of them, onto these armatures, with these settings but their whole length": (
        "Mehrere Videos wählen: je ein Auftrag auf diese Skelette, mit diesen Werten, aber in ganzer Länge"
    ),
    "Folder": "Ordner",
    "Where the videos are": "Wo die Videos sind",
    "Videos": "Videos",
    "The videos' file names": "Die Dateinamen der Videos",
    "Remove the chosen job from the queue; what it captured stays": "Den gewählten Auftrag entfernen; seine Aufnahme bleibt",
    "Let the chosen job run earlier or later": "Den gewählten Auftrag früher oder später abarbeiten",
    "Direction": "Richtung",
    "Which way the job goes": "Wohin der Auftrag rückt",
    "Up": "Hinauf",
    "Run it earlier": "Früher abarbeiten",
    "Down": "Hinunter",
    "Run it later": "Später abarbeiten",
    "Remove jobs from the queue; what they captured stays": "Aufträge aus der Reihe nehmen; ihre Aufnahmen bleiben",
    "Which": "Welche",
    "The jobs to remove": "Die Aufträge, die entfernt werden",
    "Done": "Erledigt",
    "Those that are done": "Die erledigten",
    "All": "Alle",
    "All but the one that runs": "Alle außer dem laufenden",
    "Let the chosen job run once more when the queue runs": "Den gewählten Auftrag mit der Reihe noch einmal abarbeiten",
    "Capture all waiting jobs, one after another; one that fails stops nothing else": (
        "Alle wartenden Aufträge nacheinander aufnehmen; einer, der scheitert, hält die anderen nicht auf"
    ),
    "Write the queue as a JSON file for `--command anyrig batch` or Flamenco; each job saves a .blend of its own": (
        "Die Reihe als JSON-Datei für `--command anyrig batch` oder Flamenco schreiben; jeder Auftrag sichert eine eigene .blend"
    ),
    "The JSON file to write": "Die JSON-Datei",
    "Write the job type that spreads a jobs file over a farm; its place is the folder scripts beside flamenco-manager": (
        "Den Auftragstyp schreiben, der Aufträge auf eine Farm verteilt; er gehört in den Ordner scripts neben flamenco-manager"
    ),
    "Where to write the job type": "Wohin der Auftragstyp geschrieben wird",
    "Jobs that are captured one after another": "Aufträge, die nacheinander aufgenommen werden",
    "An armature that the job animates": "Ein Skelett, das der Auftrag bewegt",
    "The bones that were selected when the job was added, as a JSON list": (
        "Die beim Einreihen ausgewählten Knochen, als JSON-Liste"
    ),
    "Key": "Schlüssel",
    "What the job is found again by": "Woran der Auftrag wiedererkannt wird",
    "The video's file name, for the list": "Der Dateiname des Videos, für die Liste",
    "Settings": "Werte",
    "The settings of the capture, as they were when the job was added": "Die Werte der Aufnahme, wie sie beim Einreihen waren",
    "State": "Stand",
    "Whether the job was done": "Ob der Auftrag erledigt ist",
    "Waiting": "Wartet",
    "Failed": "Gescheitert",
    "Message": "Meldung",
    "What became of the job": "Was aus dem Auftrag wurde",
    "Job": "Auftrag",
    "The job that is chosen in the list": "Der in der Liste gewählte Auftrag",
    "More to do with the queue": "Mehr zur Warteschlange",
}

PREFERENCES = {
    "Load PyTorch, which takes seconds, and tell whether it can use this computer's graphics card": (
        "PyTorch laden, was Sekunden dauert, und sagen, ob es die Grafikkarte dieses Rechners verwenden kann"
    ),
    "Put what a report of a problem needs on the clipboard: versions, libraries, devices; no names, no files of yours": (
        "In die Zwischenablage legen, was eine Fehlermeldung braucht: Versionen, Bibliotheken, Geräte; keine Namen oder Dateien"
    ),
    "Reference Views": "Referenzansichten",
    "What draws the pictures of the rig that are compared with the video": (
        "Was die Bilder des Rigs zeichnet, die mit dem Video verglichen werden"
    ),
    "Workbench": "Workbench",
    "Fast; needs a working graphics driver": "Schnell; braucht einen funktionierenden Grafiktreiber",
    "Cycles": "Cycles",
    "For machines without a graphics driver, where Workbench would end Blender": (
        "Für Rechner ohne Grafiktreiber, wo Workbench Blender beenden würde"
    ),
    "Where the network runs unless the panel says otherwise": "Wo das Netz rechnet, wenn der Bereich nichts anderes sagt",
    "Weights Folder": "Ordner der Gewichte",
    "Where the released weights lie; empty: with the extension's own files": (
        "Wo die veröffentlichten Gewichte liegen; leer: bei den Dateien des Add-ons"
    ),
    "Weights Mirror": "Spiegel der Gewichte",
    "Address to download the released weights from; empty: the hub where they were published": (
        "Adresse, von der die Gewichte kommen; leer: der Ort ihrer Veröffentlichung"
    ),
}

GERMAN_DETAILS = {**RIG, **VIDEO, **REFERENCE, **MODEL_AND_OUTPUT, **TAKES, **CHECK, **QUEUE, **PREFERENCES}
