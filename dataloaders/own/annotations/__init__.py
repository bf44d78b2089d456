"""Annotations in JSON, COCO's and labelme's, drawn as masks of class indices."""
