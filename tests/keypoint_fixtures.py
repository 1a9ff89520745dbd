"""Keypoint files as detectors write them."""

import json
from pathlib import Path

KEYPOINTS = Path(__file__).resolve().parents[1].parent / "shared" / "keypoints"


def entry(image_id="0.jpg", value=0.5, num_joints=26, **more):
    keypoints = [float(x) for joint in range(num_joints) for x in (10 * joint + value, 20 * joint, value)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 2.0, "idx": [0.0]} | more


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
    scores = [0.01 * joint for joint in range(num_joints)]
    person = {"keypoints": keypoints, "keypoint_scores": scores, "bbox": [[0, 0, 9, 9]], "bbox_score": 0.75}
    return person | more


def mmpose(*people, num_frames=3, first_frame=0):
    people = list(people or [mmpose_person()])
    return [{"frame_id": first_frame + i, "instances": people} for i in range(num_frames)]


def gastnet(num_frames=3, **person):
    somebody = {"pose": [[float(j), 2.0 * j] for j in range(17)], "score": [[0.9]] * 17} | person
    return {"label": "x", "data": [{"frame_index": k + 1, "skeleton": [somebody]} for k in range(num_frames)]}
