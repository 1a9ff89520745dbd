"""Keypoint files as detectors write them."""

import json
from pathlib import Path

KEYPOINTS = Path(__file__).resolve().parents[1].parent / "shared" / "keypoints"


def entry(image_id="0.jpg", value=0.5, num_joints=26, **more):
    keypoints = [float(x) for joint in range(num_joints) for x in (10 * joint + value, 20 * joint, value)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 2.0, "idx": [0.0]} | more


def descending_scores(num_joints=17):
    """From 0.96 on, as a detector's that is sure of what it sees."""
    return [round(0.96 - 0.002 * joint, 3) for joint in range(num_joints)]


def write(tmp_path, content) -> Path:
    path = tmp_path / "detections.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def mediapipe_person(x=0.5):
    return [{"x": x, "y": joint / 40, "z": 0.0, "visibility": 0.9} for joint in range(33)]


def openpose_frame(*people, **more):
    return {
        "version": 1.2,
        "people": [{"pose_keypoints_2d": person, "person_id": [-1]} | more for person in people],
    }


def openpose_folder(tmp_path, frames) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(frames):
        (folder / f"clip7_{number:012}_keypoints.json").write_text(json.dumps(frame))
    return folder


def person_at(x, num_joints=25, confidence=0.5):
    return [float(v) for j in range(num_joints) for v in (x + 3 * (j % 5), 100 + 8 * j, confidence)]


def mmpose_person(num_joints=17, x=0.0, **more):
    """As MMPose's `split_instances` writes one: the box is a list within a list."""
    keypoints = [[x + 10.0 * joint, 20.0 * joint] for joint in range(num_joints)]
    scores = descending_scores(num_joints)
    person = {"keypoints": keypoints, "keypoint_scores": scores, "bbox": [[0, 0, 9, 9]], "bbox_score": 0.75}
    return person | more


def mmpose(*people, num_frames=3, first_frame=0):
    people = list(people or [mmpose_person()])
    return [{"frame_id": first_frame + i, "instances": people} for i in range(num_frames)]


def gastnet(num_frames=3, **person):
    somebody = {"pose": [[float(j), 2.0 * j] for j in range(17)], "score": [[0.9]] * 17} | person
    return {"label": "x", "data": [{"frame_index": k + 1, "skeleton": [somebody]} for k in range(num_frames)]}


def yolo_keypoints(x=0.0):
    """Of a picture of 640 × 480: x, y in pixels, confidence."""
    return [(x + 100.0 + 8 * joint, 50.0 + 20 * joint, round(0.2 + 0.04 * joint, 2)) for joint in range(17)]


def yolo_label(x=0.0, *tail):
    """A line as `Results.save_txt` of ultralytics 8.4 writes it, shares of the picture in %g."""
    keypoints = [v for px, py, c in yolo_keypoints(x) for v in (px / 640, py / 480, c)]
    return ("%g " * (5 + len(keypoints) + len(tail))).rstrip() % (0, 0.5, 0.5, 0.2, 0.6, *keypoints, *tail)


def yolo_labels(folder, frames, name="video_{}") -> Path:
    """A file for each of the frames that has people, lines by number."""
    folder.mkdir(parents=True)
    for number, lines in frames.items():
        (folder / f"{name.format(number)}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def yolo_summary(x=0.0, **more):
    """A person as `Results.summary` of ultralytics 8.4 gives them."""
    xs, ys, visible = (list(column) for column in zip(*yolo_keypoints(x), strict=True))
    box = {"x1": min(xs), "y1": min(ys), "x2": max(xs), "y2": max(ys)}
    keypoints = {"x": xs, "y": ys, "visible": visible}
    return {"name": "person", "class": 0, "confidence": 0.9, "box": box, "keypoints": keypoints} | more


def person_with_scores(num_joints=17, **more):
    """As transformers' `post_process_pose_estimation` gives one, tensors as lists."""
    keypoints = [[10.0 * joint, 20.0 * joint] for joint in range(num_joints)]
    scores = descending_scores(num_joints)
    return {"keypoints": keypoints, "scores": scores, "bbox": [0.0, 0.0, 9.0, 9.0]} | more


def javascript_person(num_joints=17, *, score="score", x=0.0, **more):
    """As TensorFlow.js's `estimatePoses` gives one (MoveNet 17, BlazePose 33); ml5 calls the score "confidence"."""
    names = ["nose", *(f"landmark_{joint}" for joint in range(1, num_joints))]
    keypoints = [
        {"x": x + 10.0 * joint, "y": 20.0 * joint, score: score_of, "name": name}
        for joint, (name, score_of) in enumerate(zip(names, descending_scores(num_joints), strict=True))
    ]
    return {"keypoints": keypoints, "score": 0.8} | more
