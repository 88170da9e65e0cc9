"""Makes a bucket: bucket.py ENDPOINT BUCKET [KEY SECRET]; certificates are not checked."""
import sys
import warnings

import boto3

warnings.filterwarnings('ignore')
endpoint, bucket = sys.argv[1:3]
key, secret = sys.argv[3:5] if len(sys.argv) > 3 else ('x', 'y')
boto3.client(
    's3',
    endpoint_url=endpoint,
    region_name='us-east-1',
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    verify=False,
).create_bucket(Bucket=bucket)
